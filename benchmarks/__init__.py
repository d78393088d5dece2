"""The benchmark of the loss, forward and backward: python -m benchmarks --device cpu|gpu."""

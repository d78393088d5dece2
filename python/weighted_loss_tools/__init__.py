"""Tools for Caffe's layer SigmoidCrossEntropyWeightLoss, which need pycaffe and no kernel."""

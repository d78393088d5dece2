"""The demo's net trained on a GPU: the losses are those of the CPU."""

import re

import pytest

LOSS = re.compile(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)")
# How far losses may be apart, relative: in the first iterations by rounding alone, and later by
# what training makes of it. docs/gpu.md says what was seen on a CPU that rounds in two ways.
EARLY, EARLY_BOUND = 10, 1e-3
LATE_BOUND = 0.1
THREADS = {"OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
TRAIN = ["caffe", "train", "-solver=solver.prototxt"]


@pytest.fixture(scope="session")
def train(run, demo):
    """Train; return the losses."""

    def train(*program):
        status, text = run(*program, cwd=demo, **THREADS)
        assert status == 0, text
        return [float(loss) for _, loss in LOSS.findall(text)]

    return train


@pytest.fixture(scope="session")
def on_cpu(train):
    losses = train(*TRAIN)
    assert losses
    return losses


@pytest.mark.parametrize(
    "program",
    [[*TRAIN, "-gpu=0"], [*TRAIN, "-gpu=all"], ["nccl", "solver.prototxt"]],
    ids=["gpu-0", "gpu-all", "nccl"],
)
def test_losses_are_the_cpus(train, on_cpu, gpu, program):
    losses = train(*program)
    assert losses
    if gpu["devices"] > 1 and program[-1] != "-gpu=0":
        return  # Each GPU takes batches of its own.
    assert len(losses) == len(on_cpu)
    apart = [abs(a - b) / abs(a) for a, b in zip(on_cpu, losses)]
    # NaN is never within a bound; and max() would lose it.
    assert all(difference <= EARLY_BOUND for difference in apart[:EARLY]), apart
    assert all(difference <= LATE_BOUND for difference in apart), apart
    assert losses[-1] < losses[0]

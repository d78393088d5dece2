"""Who is measured on a GPU, and how each computes a step there, timed on the device."""

import time
from dataclasses import dataclass

import numpy as np

from contestants import Contestant, Jax, Native, Torch, TorchCompile


@dataclass(frozen=True)
class OnGpu(Contestant):
    """Also, how many bytes an element of float32 takes at the least."""

    bytes: int = 0
    is_optional: bool = False  # left out where this machine lacks it, or it is wrong


COPY, LAYER, ONE_PASS = "copy", "layer", "one-pass"
# The loss reads scores and targets, the gradient too, and writes; one pass does so once.
CONTESTANTS = [
    OnGpu(COPY, "the copy, device to device", "gpu-copy", 2, is_loss=False, bytes=8),
    OnGpu(LAYER, "our layer", "gpu-layer", 3, bytes=20),
    OnGpu("two-passes", "our kernel, two passes", "gpu-two-passes", 3, bytes=20),
    OnGpu(ONE_PASS, "our kernel, one pass", "gpu-one-pass", 3, bytes=12),
    # Optional, since it adds up float losses in float.
    OnGpu(
        "upstream",
        "upstream's layer, unweighted",
        "gpu-upstream",
        6,
        is_weighted=False,
        is_optional=True,
    ),
    OnGpu("torch", "PyTorch eager", "gpu-torch", 8, is_optional=True),
    OnGpu("torch-compile", "PyTorch torch.compile", "gpu-torch-compile", 4, is_optional=True),
    OnGpu("jax", "JAX jit", "gpu-jax", 6, is_optional=True),
]

NATIVE = {  # kind: the adapter's way, and the layer
    "gpu-copy": ("copy", "SigmoidCrossEntropyWeightLoss"),
    "gpu-layer": ("layer", "SigmoidCrossEntropyWeightLoss"),
    "gpu-two-passes": ("two passes", "SigmoidCrossEntropyWeightLoss"),
    "gpu-one-pass": ("one pass", "SigmoidCrossEntropyWeightLoss"),
    "gpu-upstream": ("layer", "SigmoidCrossEntropyLoss"),
}


class TorchOnGpu(Torch):
    """Timed by CUDA's events."""

    def describe(self):
        return {"versions": f"PyTorch {self.torch.__version__}, CUDA {self.torch.version.cuda}"}

    def tensor(self, array):
        return self.torch.from_numpy(array).cuda()

    def run(self, calls):
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            self.step()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    def result(self):
        loss, gradient = self.step()
        return loss.item(), gradient.cpu().numpy()

    def release(self):
        super().release()
        self.torch.cuda.empty_cache()


class TorchCompileOnGpu(TorchOnGpu, TorchCompile):
    """The same compiled graph as on the CPU, through Triton."""


class JaxOnGpu(Jax):
    """Timed by the clock, since JAX gives no events: steps in a row, the last one awaited."""

    def __init__(self):
        super().__init__()
        if self.jax.default_backend() != "gpu":
            raise OSError(f"JAX runs on the {self.jax.default_backend()}, not on the GPU")

    def step(self):
        return self.compiled(self.scores, self.targets)

    def run(self, calls):
        begin = time.perf_counter()
        for _ in range(calls):
            last = self.step()
        self.jax.block_until_ready(last)
        return time.perf_counter() - begin

    def result(self):
        loss, gradient = self.step()
        return loss.item(), np.asarray(gradient)


IN_PYTHON = {
    "gpu-torch": TorchOnGpu,
    "gpu-torch-compile": TorchCompileOnGpu,
    "gpu-jax": JaxOnGpu,
}


def implementation(kind):
    return IN_PYTHON[kind]() if kind in IN_PYTHON else Native(*NATIVE[kind])

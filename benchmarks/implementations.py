"""How each contestant computes a step: loss and gradient of arrays of its own, on a device.

What a class here imports beyond NumPy, it imports when it is made, in its worker's process.
"""

import os
import time
from pathlib import Path

import numpy as np

from benchmarks.adapter import Adapter, AdapterStep
from benchmarks.problem import CLS_WEIGHT

OUR_LAYER = "SigmoidCrossEntropyWeightLoss"


class Native:
    """What the C++ adapter computes: the baseline, Caffe's layers, our kernel."""

    def __init__(self, way, layer=OUR_LAYER):
        self.way, self.layer = way, layer
        self.step = None
        self.adapter = Adapter(Path(os.environ["BENCH_ADAPTER"]))

    def describe(self):
        return self.adapter.describe()

    def prepare(self, problem):
        self.step = AdapterStep(self.adapter, self.way, problem.layer(self.layer), problem)

    def run(self, calls):
        return self.step.run(calls)

    def result(self):
        return self.step.result()

    def release(self):
        if self.step:
            self.step.release()
        self.step = None


class InPython:
    """What is called from Python, at the cost of that call."""

    def run(self, calls):
        begin = time.perf_counter()
        for _ in range(calls):
            self.step()
        return time.perf_counter() - begin

    def result(self):
        loss, gradient = self.step()
        return loss.item(), np.asarray(gradient)

    def release(self):
        self.scores = self.targets = self.gradient = None


class Article(InPython):
    """The arithmetic of the article's forward and backward, temporaries and all."""

    def describe(self):
        return {"versions": f"NumPy {np.__version__}"}

    def prepare(self, problem):
        self.scores, self.targets, _ = problem.arrays()
        self.gradient = np.empty_like(self.scores)

    def step(self):
        x, t, w = self.scores, self.targets, CLS_WEIGHT
        first = -(t - 1) * x
        second = -((1 - w) * t - 1) * np.log(1 + np.exp(-x))
        loss = np.sum(first + second)
        probability = 1.0 / (1.0 + np.exp(-x))
        difference = ((w - 1) * t + 1) * probability - w * t
        self.gradient[...] = difference
        return loss, self.gradient


class FrontNumpy(InPython):
    """Our package on NumPy arrays, the gradient's among them."""

    def __init__(self):
        from weighted_sigmoid_loss import _kernel, numpy

        self.package, self.kernel = numpy, _kernel

    def describe(self):
        return {"isa": self.kernel.instruction_set(), "versions": f"NumPy {np.__version__}"}

    def prepare(self, problem):
        self.scores, self.targets, _ = problem.arrays()
        self.gradient = np.empty_like(self.scores)

    def step(self):
        return self.package.loss_and_grad(
            self.scores,
            self.targets,
            cls_weight=CLS_WEIGHT,
            normalization="none",
            out=self.gradient,
        )

    def result(self):
        return self.step()


class Torch(InPython):
    """PyTorch's own loss with pos_weight, and autograd, operator by operator."""

    def __init__(self, device="cpu"):
        import torch

        self.torch, self.on_gpu = torch, device == "gpu"
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def describe(self):
        versions = f"PyTorch {self.torch.__version__}"
        if self.on_gpu:
            versions += f", CUDA {self.torch.version.cuda}"
        elif hasattr(self.torch.backends, "cpu"):  # from 2.1 on
            versions += f" ({self.torch.backends.cpu.get_cpu_capability()})"
        return {"versions": versions}

    def tensor(self, array):
        tensor = self.torch.from_numpy(array)
        return tensor.cuda() if self.on_gpu else tensor

    def prepare(self, problem):
        scores, targets, _ = problem.arrays()
        self.scores, self.targets = self.tensor(scores), self.tensor(targets)
        weights = problem.cls_weight if problem.by_channel else CLS_WEIGHT
        self.pos_weight = self.tensor(np.array(weights, scores.dtype))
        self.set_up()

    def set_up(self):
        self.scores.requires_grad_()

    def loss(self, scores, targets):
        return self.torch.nn.functional.binary_cross_entropy_with_logits(
            scores, targets, pos_weight=self.pos_weight, reduction="sum"
        )

    def step(self):
        loss = self.loss(self.scores, self.targets)
        (gradient,) = self.torch.autograd.grad(loss, self.scores)
        return loss, gradient

    def run(self, calls):
        if not self.on_gpu:
            return super().run(calls)
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
        if self.on_gpu:
            self.torch.cuda.empty_cache()


class FrontTorch(Torch):
    """Our package in place of PyTorch's own loss."""

    def __init__(self):
        super().__init__()
        from weighted_sigmoid_loss import _kernel
        from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits

        self.kernel, self.function = _kernel, binary_cross_entropy_with_logits

    def describe(self):
        return {**super().describe(), "isa": self.kernel.instruction_set()}

    def loss(self, scores, targets):
        return self.function(scores, targets, pos_weight=self.pos_weight, reduction="sum")


class TorchOverhead(Torch):
    """A function that computes nothing, whose backward hands over a tensor that is there."""

    def prepare(self, problem):
        super().prepare(problem)
        gradient, loss = self.torch.empty_like(self.targets), self.targets.reshape(-1)[0].clone()

        class Empty(self.torch.autograd.Function):
            @staticmethod
            def forward(ctx, scores):
                return loss.clone()

            @staticmethod
            def backward(ctx, of_loss):
                return gradient

        self.function = Empty

    def loss(self, scores, targets):
        return self.function.apply(scores)


class TorchCompile(Torch):
    """The same loss, and its gradient by autograd, compiled as one graph for each size.

    One graph of both lets the compiler put them into one loop. Compiled apart, with autograd in
    between, they were as fast at best.
    """

    def set_up(self):
        self.torch.compiler.reset()
        both = self.torch.func.grad_and_value(self.loss)
        self.compiled = self.torch.compile(both, fullgraph=True, dynamic=False)

    def step(self):
        gradient, loss = self.compiled(self.scores, self.targets)
        return loss, gradient


class Jax(InPython):
    """The stable formula that has one softplus; the one with two log_sigmoid was slower."""

    def __init__(self, device):
        import jax

        if jax.default_backend() != device:
            raise OSError(f"JAX runs on the {jax.default_backend()}, not on the {device}")
        self.jax, self.on_gpu = jax, device == "gpu"

        def loss(x, t):
            return jax.numpy.sum((1 - t) * x + (1 + (CLS_WEIGHT - 1) * t) * jax.nn.softplus(-x))

        self.compiled = jax.jit(jax.value_and_grad(loss))

    def describe(self):
        return {"versions": f"JAX {self.jax.__version__}"}

    def prepare(self, problem):
        self.scores, self.targets = map(self.jax.numpy.asarray, problem.arrays()[:2])

    def step(self):
        return self.jax.block_until_ready(self.compiled(self.scores, self.targets))

    def run(self, calls):
        """JAX gives no events: by the clock, steps in a row, of which a GPU awaits the last one."""
        if not self.on_gpu:
            return super().run(calls)
        begin = time.perf_counter()
        for _ in range(calls):
            last = self.compiled(self.scores, self.targets)
        self.jax.block_until_ready(last)
        return time.perf_counter() - begin


# By a contestant's family.
IMPLEMENTATIONS = {
    "floor": lambda device: Native("baseline"),
    "copy": lambda device: Native("baseline"),
    "layer": lambda device: Native("layer"),
    "layer-in-net": lambda device: Native("net"),
    "two-passes": lambda device: Native("two passes"),
    "one-pass": lambda device: Native("one pass"),
    "plain": lambda device: Native("plain"),
    "highway": lambda device: Native("highway"),
    "upstream": lambda device: Native("layer", "SigmoidCrossEntropyLoss"),
    "article": lambda device: Article(),
    "front-numpy": lambda device: FrontNumpy(),
    "front-torch": lambda device: FrontTorch(),
    "front-torch-channels": lambda device: FrontTorch(),
    "torch-overhead": lambda device: TorchOverhead(),
    "torch": Torch,
    "torch-channels": Torch,
    "torch-compile": TorchCompile,
    "jax": Jax,
}

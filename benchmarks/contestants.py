"""Who is measured, and how each computes a step: loss and gradient of arrays of its own.

What a class here imports beyond NumPy, it imports when it is made, in its worker's process.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adapter import Adapter, AdapterStep
from problem import CLS_WEIGHT

# As the kernel names its instruction sets, and as people do.
INSTRUCTION_SETS = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "no FMA"}
OURS = {
    "layer": "our layer",
    "two-passes": "our kernel, two passes",
    "one-pass": "our kernel, one pass",
}
# The Python package; with the machine's best instruction set alone.
FRONTS = {"front-numpy": "our package, NumPy", "front-torch": "our package, PyTorch"}


@dataclass(frozen=True)
class Contestant:
    """One of those in the run; each has a process of its own."""

    name: str
    label: str
    kind: str
    arrays: int  # measured: how many of the problem's size it holds at its peak
    isa: str = ""
    is_weighted: bool = True
    is_loss: bool = True  # False: it computes something else, so that it cannot agree

    @property
    def group(self):
        """What --only names it by."""
        if self.kind in (*FRONTS, "torch-overhead"):
            return "package"
        return "ours" if self.isa else self.name

    def problem(self, problem):
        """The problem as this one can solve it."""
        return replace(problem, is_weighted=self.is_weighted)


OTHERS = [
    Contestant("upstream", "upstream's layer, unweighted", "upstream", 4, is_weighted=False),
    Contestant("article", "the article, NumPy", "article", 8),
    Contestant("torch", "PyTorch eager", "torch", 6),
    Contestant("torch-compile", "PyTorch torch.compile", "torch-compile", 4),
    Contestant("jax", "JAX jit", "jax", 7),
]
# What PyTorch takes for any function that is written in Python and gives a gradient.
OVERHEAD = Contestant(
    "torch-overhead", "PyTorch, an empty function", "torch-overhead", 3, is_loss=False
)


def all_contestants(instruction_sets):
    """In the order of a turn."""
    floor = Contestant("floor", "the floor, y = x + t", "floor", 3, is_loss=False)
    ours = [
        Contestant(f"{name}-{isa}", f"{label}, {INSTRUCTION_SETS[isa]}", name, 3, isa=isa)
        for name, label in OURS.items()
        for isa in instruction_sets
    ]
    best = instruction_sets[0]
    fronts = [
        Contestant(f"{name}-{best}", f"{label}, {INSTRUCTION_SETS[best]}", name, 3, isa=best)
        for name, label in FRONTS.items()
    ]
    return [floor, *ours, *fronts, OVERHEAD, *OTHERS]


NATIVE = {  # kind: the adapter's way, and the layer
    "floor": ("floor", "SigmoidCrossEntropyWeightLoss"),
    "layer": ("layer", "SigmoidCrossEntropyWeightLoss"),
    "two-passes": ("two passes", "SigmoidCrossEntropyWeightLoss"),
    "one-pass": ("one pass", "SigmoidCrossEntropyWeightLoss"),
    "upstream": ("layer", "SigmoidCrossEntropyLoss"),
}


class Native:
    """What the C++ adapter computes: the floor, Caffe's layers, our kernel."""

    def __init__(self, way, layer):
        self.way, self.layer = way, layer
        self.step = None
        self.adapter = Adapter(Path(os.environ["BENCH_ADAPTER"]))

    def describe(self):
        in_use, available, compiler = self.adapter.describe()
        return {"isa": in_use, "instruction_sets": available, "versions": compiler}

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
        import weighted_sigmoid_loss
        from weighted_sigmoid_loss import _kernel

        self.package, self.kernel = weighted_sigmoid_loss, _kernel

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

    def __init__(self):
        import torch

        self.torch = torch
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def describe(self):
        versions = f"PyTorch {self.torch.__version__}"
        if hasattr(self.torch.backends, "cpu"):  # from 2.1 on
            versions += f" ({self.torch.backends.cpu.get_cpu_capability()})"
        return {"versions": versions}

    def tensor(self, array):
        return self.torch.from_numpy(array)

    def prepare(self, problem):
        scores, targets, _ = problem.arrays()
        self.scores, self.targets = self.tensor(scores), self.tensor(targets)
        self.pos_weight = self.tensor(np.array(CLS_WEIGHT, scores.dtype))
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

    def __init__(self):
        import jax

        self.jax = jax

        def loss(x, t):
            return jax.numpy.sum((1 - t) * x + (1 + (CLS_WEIGHT - 1) * t) * jax.nn.softplus(-x))

        self.compiled = jax.jit(jax.value_and_grad(loss))

    def describe(self):
        return {"versions": f"JAX {self.jax.__version__}"}

    def prepare(self, problem):
        self.scores, self.targets = map(self.jax.numpy.asarray, problem.arrays()[:2])

    def step(self):
        return self.jax.block_until_ready(self.compiled(self.scores, self.targets))


IN_PYTHON = {
    "article": Article,
    "front-numpy": FrontNumpy,
    "front-torch": FrontTorch,
    "torch-overhead": TorchOverhead,
    "torch": Torch,
    "torch-compile": TorchCompile,
    "jax": Jax,
}


def implementation(kind):
    """What computes that kind of contestant, in its worker's process."""
    if kind.startswith("gpu-"):
        import gpu_contestants

        return gpu_contestants.implementation(kind)
    return IN_PYTHON[kind]() if kind in IN_PYTHON else Native(*NATIVE[kind])

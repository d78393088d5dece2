"""What PyTorch's own loss can do, by ours: each use runs with both, and the two are compared."""

import copy
import warnings

import pytest
from programs import run
from pytorch import torch

from weighted_sigmoid_loss import torch as ours

functional = torch.nn.functional
OURS = ours.binary_cross_entropy_with_logits
THEIRS = functional.binary_cross_entropy_with_logits
REDUCTIONS = ["none", "mean", "sum"]
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def since(version, what):
    """A mark for what older versions of PyTorch lack."""
    words = ".".join(map(str, version))
    return pytest.mark.skipif(version > VERSION, reason=f"{what} came with PyTorch {words}")


TORCH_FUNC = since((2, 0), "torch.func")
OPERATOR = since((2, 4), "torch.library.register_autograd, which the operator takes,")


def numbers(*shape, seed=0, dtype=torch.float32):
    """Scores, targets, element weights, a weight per channel of the second axis."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    t = torch.rand(shape, generator=generator, dtype=dtype)
    weight = torch.rand(shape, generator=generator, dtype=dtype)
    pos_weight = 1 + torch.rand((shape[1], *(1,) * (len(shape) - 2)), generator=generator).to(dtype)
    return x, t, weight, pos_weight


def same(use, *arguments, **tolerance):
    """use(loss function, ...) gives the same by both, types and shapes included."""
    got, expected = use(OURS, *arguments), use(THEIRS, *arguments)
    torch.testing.assert_close(got, expected, **tolerance)
    return got


def value_and_grad(loss_of, *tensors):
    """The result and the gradients of the tensors that require one, in their own layout."""
    tensors = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
    loss = loss_of(*tensors)
    loss.sum().backward()
    return [loss.detach(), *(t.grad for t in tensors if t.requires_grad)]


# Signature and types


def test_signature():
    import inspect

    got, expected = (inspect.signature(function).parameters for function in (OURS, THEIRS))
    assert list(got) == list(expected)
    for name, parameter in expected.items():
        assert (got[name].kind, got[name].default) == (parameter.kind, parameter.default)


@pytest.mark.parametrize(
    "arguments", [(False,), (True,), (None, False), (True, False), (False, True)]
)
def test_size_average_and_reduce(arguments):
    x, t, weight, pos_weight = numbers(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(lambda loss: loss(x, t, weight, *arguments, pos_weight=pos_weight))
        kinds = ours.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss
        got, expected = (kind(None, *arguments)(x, t) for kind in kinds)
    torch.testing.assert_close(got, expected)


def test_everything_by_position():
    x, t, weight, pos_weight = numbers(4, 3)
    same(lambda loss: loss(x, t, weight, None, None, "sum", pos_weight))


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
HALF = since((2, 2), "half on the CPU")


@pytest.mark.parametrize("of_target", FLOATS, ids=str)
@pytest.mark.parametrize(
    "of_input", [pytest.param(FLOATS[0], marks=HALF), *FLOATS[1:3], FLOATS[3]], ids=str
)
def test_types(of_input, of_target):
    """The result has PyTorch's type and its value in float64, rounded once or twice."""
    x, t = numbers(5, 4)[:2]
    x, t = x.to(of_input), t.to(of_target)
    exact = THEIRS(x.double(), t.double(), reduction="none")
    got, expected = (loss(x, t, reduction="none") for loss in (OURS, THEIRS))
    assert got.dtype == expected.dtype
    precision = torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.double(), exact, rtol=max(precision, 4e-7), atol=1e-7)
    x.requires_grad_()
    y = x.detach().double().requires_grad_()
    OURS(x, t).backward()
    THEIRS(y, t.double()).backward()
    assert x.grad.dtype == of_input
    precision = max(torch.finfo(of_input).eps, torch.finfo(of_target).eps)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=2 * precision, atol=1e-7)


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.uint8, torch.int32], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 1)], ids=str)
def test_types_of_weights(name, dtype, shape):
    x, t = numbers(5, 4)[:2]
    values = torch.full(shape, 3).to(dtype)
    same(lambda loss: value_and_grad(lambda x: loss(x, t, **{name: values}), x.requires_grad_()))


def test_mask_as_weight():
    x, t = numbers(5, 4)[:2]
    same(lambda loss: loss(x, t, weight=t > 0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_autocast(dtype):
    net = torch.nn.Linear(4, 4)
    x, t, _, pos_weight = numbers(5, 4)

    def use(loss):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            result = loss(net(x).to(dtype), t.to(dtype), pos_weight=pos_weight)
        result.backward()
        return [result.detach(), net.weight.grad.clone()]

    assert same(use, rtol=1e-3, atol=1e-4)[0].dtype == torch.float32


# Layouts


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("of_target", ["same", "contiguous"])
def test_channels_last(reduction, of_target):
    x, t, weight, pos_weight = numbers(2, 3, 4, 5)
    x = x.contiguous(memory_format=torch.channels_last)
    if of_target == "same":
        t = t.contiguous(memory_format=torch.channels_last)

    def use(loss):
        leaf = x.clone().requires_grad_()
        result = loss(leaf, t, weight, pos_weight=pos_weight, reduction=reduction)
        (grad,) = torch.autograd.grad(result.sum(), leaf)
        if loss is OURS or of_target == "same":
            assert grad.stride() == x.stride()
            assert result.dim() == 0 or result.stride() == x.stride()
        return [result.detach(), grad]

    same(use)


def test_channels_last_is_not_copied():
    """What is allocated is the gradient and the loss."""
    x, t, _, pos_weight = numbers(2, 3, 16, 16)
    x, t = (v.contiguous(memory_format=torch.channels_last) for v in (x, t))
    x.requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        OURS(x, t, pos_weight=pos_weight)
    allocated = sum(max(0, e.cpu_memory_usage) for e in profile.events() if e.cpu_parent is None)
    assert allocated < 1.1 * 4 * x.numel()


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        lambda x: torch.cat((x, x), 2)[:, :, ::2],
        lambda x: x[:, :1].expand_as(x),
        lambda x: x.flip(0)[1:],
    ],
    ids=["transposed", "permuted", "sliced", "expanded", "offset"],
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_layouts(layout, reduction):
    x, t, weight, pos_weight = (layout(v) if v.dim() == 3 else v for v in numbers(3, 4, 5))
    pos_weight = pos_weight.reshape(4, 1)

    def use(loss):
        leaf = x.detach().requires_grad_()
        result = loss(leaf, t, weight, pos_weight=pos_weight, reduction=reduction)
        return [result.detach(), *torch.autograd.grad(result.sum(), leaf)]

    same(use)


# Derivatives


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradgradcheck(reduction):
    x, t, weight, pos_weight = numbers(3, 4, dtype=torch.float64)

    def loss(x):
        return OURS(x, t, weight, pos_weight=pos_weight, reduction=reduction)

    x.requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(loss, (x,))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_of_the_target(reduction):
    x, t, weight, pos_weight = numbers(5, 4)

    def use(loss):
        def of(x, t):
            return loss(x, t, weight, pos_weight=pos_weight, reduction=reduction)

        return value_and_grad(of, x.requires_grad_(), t.requires_grad_())

    same(use)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_of_weights(reduction):
    """PyTorch's own refuses them."""
    tensors = [v.requires_grad_() for v in numbers(3, 4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(
        lambda x, t, w, p: OURS(x, t, w, pos_weight=p, reduction=reduction), tensors
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hard", [0.0, 1.0])
def test_formula_keeps_the_digits(dtype, hard):
    """Where PyTorch's own loses them; a target that requires a gradient takes the formula."""
    x = torch.linspace(-60, 60, 481, dtype=dtype)
    t = torch.full_like(x, hard)

    def use(t):
        leaf = x.clone().requires_grad_()
        result = OURS(leaf, t, reduction="none")
        return [result.detach(), *torch.autograd.grad(result.sum(), leaf)]

    rtol = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(use(t.clone().requires_grad_()), use(t), rtol=rtol, atol=1e-30)


def test_double_backward():
    x, t, weight, pos_weight = numbers(5, 4)

    def use(loss):
        leaf = x.clone().requires_grad_()
        result = loss(leaf, t, weight, pos_weight=pos_weight)
        (grad,) = torch.autograd.grad(3 * result, leaf, create_graph=True)
        penalty = grad.square().sum()
        (second,) = torch.autograd.grad(penalty, leaf, create_graph=True)
        (third,) = torch.autograd.grad(second.sum(), leaf)
        return [grad.detach(), second.detach(), third]

    same(use, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 3])
def test_is_grads_batched(reduction, rows):
    x, t, _, pos_weight = numbers(5, 4)

    def use(loss):
        leaf = x.clone().requires_grad_()
        result = loss(leaf, t, pos_weight=pos_weight, reduction=reduction)
        v = torch.arange(1.0, rows + 1).reshape(rows, *(1,) * result.dim())
        v = v.expand(rows, *result.shape)
        return torch.autograd.grad(result, leaf, v, is_grads_batched=True)[0]

    same(use)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_forward_mode(reduction):
    import torch.autograd.forward_ad as forward

    x, t, weight, pos_weight = numbers(5, 4)

    def use(loss):
        with forward.dual_level():
            dual = forward.make_dual(x, torch.ones_like(x))
            result = loss(dual, t, weight, pos_weight=pos_weight, reduction=reduction)
            return list(forward.unpack_dual(result))

    same(use)


def test_forward_mode_in_the_target():
    import torch.autograd.forward_ad as forward

    x, t, _, pos_weight = numbers(5, 4)

    def use(loss):
        with forward.dual_level():
            dual = forward.make_dual(t, torch.ones_like(x))
            return list(forward.unpack_dual(loss(x, dual, pos_weight=pos_weight)))

    same(use)


def test_tangent_of_what_backward_is_given():
    """A tangent of grad_output alone, whose value is 1."""
    import torch.autograd.forward_ad as forward

    x, t = numbers(5, 4)[:2]

    def use(loss):
        leaf = x.clone().requires_grad_()
        result = loss(leaf, t)
        with forward.dual_level():
            v = forward.make_dual(torch.tensor(1.0), torch.tensor(2.0))
            (grad,) = torch.autograd.grad(result, leaf, v)
            return list(forward.unpack_dual(grad))

    same(use)


@TORCH_FUNC
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "name", ["grad", "vmap", "vmap(grad)", "jacrev", "jacfwd", "hessian", "jvp", "functionalize"]
)
def test_torch_func(name, reduction):
    x, t, weight, pos_weight = numbers(5, 4)

    def use(loss):
        from torch import func

        def of(x, t=t, weight=weight):
            result = loss(x, t, weight, pos_weight=pos_weight.reshape(-1), reduction=reduction)
            return result.sum() if "grad" in name else result

        if name == "vmap":
            return func.vmap(of)(x, t, weight)
        if name == "vmap(grad)":
            return func.vmap(func.grad(of))(x, t, weight)
        if name == "jvp":
            return func.jvp(of, (x,), (torch.ones_like(x),))
        if name == "functionalize":
            return func.functionalize(of)(x)
        return getattr(func, name)(of)(x)

    same(use, rtol=1e-4, atol=1e-7)


# Hooks and graphs


def test_hooks():
    x, t = numbers(5, 4)[:2]

    def use(loss):
        seen = []
        leaf = x.clone().requires_grad_()
        scores = 2 * leaf
        scores.register_hook(lambda grad: seen.append(grad.clone()) or 5 * grad)
        result = loss(scores, t)
        result.register_hook(lambda grad: 7 * grad)
        result.backward()
        return [leaf.grad, *seen]

    same(use)


@pytest.mark.parametrize("how", ["pack", "save_on_cpu"])
def test_hooks_on_saved_tensors(how):
    """Twice on one graph, when the first's memory is gone."""
    x, t, weight, pos_weight = numbers(64, 40)

    def use(loss):
        leaf = x.clone().requires_grad_()
        graph = torch.autograd.graph
        hooks = (
            graph.save_on_cpu()
            if how == "save_on_cpu"
            else graph.saved_tensors_hooks(lambda v: v.double(), lambda v: v.float())
        )
        with hooks:
            result = loss(
                2 * leaf, t.clone(), weight.clone(), pos_weight=pos_weight.reshape(-1) + 1
            )
        (first,) = torch.autograd.grad(result, leaf, retain_graph=True)
        rubbish = [torch.full((size,), float("nan")) for size in (40, 64 * 40) for _ in range(9)]
        (second,) = torch.autograd.grad(result, leaf)
        del rubbish
        return [first, second]

    same(use)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    x, t = numbers(5, 4)[:2]

    def use(loss):
        leaf = x.clone().requires_grad_()
        checkpoint(lambda x: loss(2 * x, t), leaf, use_reentrant=use_reentrant).backward()
        return leaf.grad

    same(use)


def test_module_copies():
    criterion = ours.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 3.0]))
    assert type(copy.deepcopy(criterion)) is ours.BCEWithLogitsLoss
    x, t = numbers(4, 2)[:2]
    torch.testing.assert_close(copy.deepcopy(criterion)(x, t), criterion(x, t))


def test_inference_mode():
    x, t = numbers(5, 4)[:2]
    with torch.inference_mode():
        same(lambda loss: loss(x * 1, t))


def test_default_device_is_another():
    """Results stay where the input is."""
    if not hasattr(torch, "set_default_device"):
        pytest.skip("torch.set_default_device() came with PyTorch 2.0")
    x, t, _, pos_weight = numbers(5, 4)
    x.requires_grad_()
    with torch.device("meta"):
        same(lambda loss: value_and_grad(lambda x: loss(x, t, pos_weight=pos_weight), x))


# Compiling and tracing


def net(loss):
    """A small net with its loss: of scores, targets, and a reduction."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.linear = torch.nn.Linear(4, 4)
            self.register_buffer("pos_weight", torch.tensor([1.0, 2.0, 30.0, 4.0]))

        def forward(self, x, t, reduction="mean"):
            scores = torch.relu(self.linear(x))
            return loss(scores, t, pos_weight=self.pos_weight, reduction=reduction)

    return Net()


def step(model, *arguments):
    model.zero_grad()
    result = model(*arguments)
    result.sum().backward()
    return [result.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.fixture(scope="session")
def inductor():
    """PyTorch's default compiler, which Debian's packages lack the headers for."""
    try:
        torch.compile(torch.exp)(torch.ones(2))
    except Exception as error:  # of a class that is PyTorch's own and moves
        pytest.skip(f"torch.compile does not compile here: {' '.join(str(error).split())[:200]}")


@OPERATOR
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compile(backend, reduction, request):
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    x, t = numbers(5, 4)[:2]
    compiled = torch.compile(net(OURS), fullgraph=True, backend=backend)
    torch.testing.assert_close(step(compiled, x, t, reduction), step(net(THEIRS), x, t, reduction))


@OPERATOR
@pytest.mark.usefixtures("inductor")
def test_compile_with_dynamic_shapes():
    torch._dynamo.reset()
    compiled = torch.compile(net(OURS), fullgraph=True, dynamic=True)
    for batch in (32, 17, 5):
        x, t = numbers(batch, 4, seed=batch)[:2]
        torch.testing.assert_close(step(compiled, x, t), step(net(THEIRS), x, t))


@OPERATOR
@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize(
    "use",
    [
        lambda loss, x, t, w, p: loss(x.bfloat16(), t.bfloat16(), pos_weight=p),
        lambda loss, x, t, w, p: loss(x, t.double(), w, pos_weight=p.long()),
        lambda loss, x, t, w, p: loss(x.T, t.T, w.T, reduction="none").sum(),
        lambda loss, x, t, w, p: loss(x, (t * x).sigmoid(), w, pos_weight=p),
        lambda loss, x, t, w, p: torch.func.grad(lambda x: loss(x, t, w, pos_weight=p))(x).sum(),
        lambda loss, x, t, w, p: torch.func.vmap(lambda x, t: loss(x, t, pos_weight=p))(x, t).sum(),
        lambda loss, x, t, w, p: torch.func.vmap(torch.func.grad(loss))(x, t).square().sum(),
    ],
    ids=["bfloat16", "promotion", "transposed", "needy target", "grad", "vmap", "vmap(grad)"],
)
def test_compile_of(request, use):
    torch._dynamo.reset()
    x, t, weight, pos_weight = numbers(5, 4)

    def results(loss, function):
        leaf = x.clone().requires_grad_()
        result = function(loss, leaf, t, weight, pos_weight)
        return [result.detach(), *torch.autograd.grad(result, leaf)]

    got = results(OURS, torch.compile(use, fullgraph=True))
    # Inductor leaves out what bfloat16 would round between two operations.
    rtol = torch.finfo(torch.bfloat16).eps if "bfloat16" in request.node.name else 1e-5
    torch.testing.assert_close(got, results(OURS, use), rtol=1.1 * rtol, atol=1e-6)


@OPERATOR
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(reduction, layout):
    x, t, weight, pos_weight = numbers(2, 3, 4, 5)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    operator = torch.ops.weighted_sigmoid_loss.loss_and_grad.default
    for rest in ((None, None), (weight, pos_weight)):
        torch.library.opcheck(operator, (x.clone().requires_grad_(), t, *rest, reduction))


@OPERATOR
@pytest.mark.parametrize("strict", [True, False])
def test_export(strict):
    x, t = numbers(5, 4)[:2]
    program = torch.export.export(net(OURS), (x, t), strict=strict)
    y, u = numbers(5, 4, seed=1)[:2]
    torch.testing.assert_close(program.module()(y, u), net(THEIRS)(y, u))


def test_make_fx():
    from torch.fx.experimental.proxy_tensor import make_fx

    x, t = numbers(5, 4)[:2]
    y, u = numbers(5, 4, seed=1)[:2]

    def use(loss):
        def of(x, t):
            leaf = x.detach().requires_grad_()
            result = loss(leaf, t)
            return [result.detach(), *torch.autograd.grad(result, leaf)]

        return make_fx(of)(x, t)(y, u)

    same(use)


def test_jit_trace():
    x, t = numbers(5, 4)[:2]
    y, u = numbers(5, 4, seed=1)[:2]

    def use(loss):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(lambda x, t: loss(x, t), (x, t))
        return value_and_grad(traced, y.requires_grad_(), u)

    same(use)


# Tensors that are not plain memory. They crashed, so each runs in a process of its own.

ALONE = """
import sys, torch
from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits as OURS
THEIRS = torch.nn.functional.binary_cross_entropy_with_logits
x, t = torch.randn(5, 4), torch.rand(5, 4)
def outcome(loss):
    try:
        return use(loss)
    except Exception as error:
        return error
{program}
expected, got = outcome(THEIRS), outcome(OURS)
print(repr(expected)[:200], repr(got)[:200], sep="\\n")
if not isinstance(got, Exception):
    assert not isinstance(expected, Exception)
    torch.testing.assert_close(got, expected)
elif {must_compute}:
    raise got
"""
FAKE = """
from torch._subclasses.fake_tensor import FakeTensorMode
def use(loss):
    with FakeTensorMode() as mode:
        a = mode.from_tensor(x).requires_grad_()
        result = loss(a, mode.from_tensor(t), pos_weight=mode.from_tensor(torch.ones(4)))
        result.backward()
        return [type(result).__name__ == "FakeTensor", list(result.shape), list(a.grad.shape)]
"""
FUNCTIONAL = """
def use(loss):
    a, b = torch._to_functional_tensor(x), torch._to_functional_tensor(t)
    result = loss(a, b)
    torch._sync(result)
    return torch._from_functional_tensor(result)
"""
ZERO = "use = lambda loss: loss(x, torch._efficientzerotensor(5, 4))"
NEGATIVE = "use = lambda loss: loss(torch._neg_view(x), t)"
RESIZED = """
def use(loss):
    a = x.clone()
    storage = a.untyped_storage() if hasattr(a, "untyped_storage") else a.storage()
    storage.resize_(0)
    return loss(a, t) if loss is OURS else None  # PyTorch's own reads the address 0
"""
TWO = """
from torch.testing._internal.two_tensor import TwoTensor
def use(loss):
    a = TwoTensor(x, 2 * x).requires_grad_()
    result = loss(a, TwoTensor(t, t))
    result.backward()
    return [result.a.detach(), result.b.detach(), a.grad.a, a.grad.b]
"""
WRAPPER = """
class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        self.inner = inner
        return self
    __torch_function__ = torch._C._disabled_torch_function_impl
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        from torch.utils._pytree import tree_map
        args = tree_map(lambda v: v.inner if isinstance(v, Wrapper) else v, args)
        result = function(*args, **(kwargs or {}))
        return tree_map(lambda v: Wrapper(v) if isinstance(v, torch.Tensor) else v, result)
use = lambda loss: loss(Wrapper(x), Wrapper(t)).inner
"""
MASKED = """
from torch.masked import masked_tensor
def use(loss):
    mask = t > 0.5
    return loss(masked_tensor(x, mask), masked_tensor(t, mask)).get_data()
"""
NAMED = "use = lambda loss: loss(x.refine_names('N', 'C'), t.refine_names('N', 'C'))"
MODE = """
from torch.utils._python_dispatch import TorchDispatchMode
class Count(TorchDispatchMode):
    calls = 0
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))
def use(loss):
    with Count() as mode:
        result = loss(x, t)
    assert mode.calls
    return result
"""
LEAKED = """
def use(loss):
    leaked = []
    torch.func.vmap(lambda x: leaked.append(x) or x)(x)
    return loss(leaked[0], t[0])
"""
NESTED = """
def use(loss):
    a, b = (torch.nested.nested_tensor([v, v[:2]]) for v in (x, t))
    return loss(a, b)
"""
MKLDNN = "use = lambda loss: loss(x.to_mkldnn(), t.to_mkldnn())"
PLAIN_SUBCLASS = """
class Sub(torch.Tensor): pass
def use(loss):
    result = loss(x.as_subclass(Sub), t)
    assert type(result) is Sub
    return result.as_subclass(torch.Tensor)
"""
DTENSOR = """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
import os, tempfile
dist.init_process_group("gloo", init_method="file://" + tempfile.mktemp(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
def use(loss):
    a, b = (distribute_tensor(v, mesh, [Shard(0)]) for v in (x, t))
    return loss(a, b).full_tensor()
"""
ASYNC = """
import torch.distributed as dist, tempfile
import torch.distributed._functional_collectives as collectives
dist.init_process_group("gloo", init_method="file://" + tempfile.mktemp(), rank=0, world_size=1)
def use(loss):
    a = collectives.all_reduce(x, "sum", dist.group.WORLD)
    assert type(a) is not torch.Tensor
    result = loss(a, t)
    return result.wait() if hasattr(result, "wait") else result
"""
NO_MEMORY = {
    "FakeTensorMode": (FAKE, True, (1, 13)),
    "functionalize": (FUNCTIONAL, True, (2, 0)),
    "zero tensor": (ZERO, True, (1, 13)),
    "negative view": (NEGATIVE, True, (1, 13)),
    "resized storage": (RESIZED, False, (1, 13)),
    "TwoTensor": (TWO, True, (2, 2)),
    "wrapper subclass": (WRAPPER, True, (2, 0)),
    "MaskedTensor": (MASKED, False, (2, 0)),
    "named tensor": (NAMED, False, (1, 13)),
    "dispatch mode": (MODE, True, (2, 0)),
    "leaked from vmap": (LEAKED, False, (2, 0)),
    "nested tensor": (NESTED, False, (2, 0)),
    "mkldnn": (MKLDNN, False, (1, 13)),
    "subclass": (PLAIN_SUBCLASS, True, (1, 13)),
    "DTensor": (DTENSOR, VERSION >= (2, 13), (2, 5)),  # 2.6's lacks softplus
    "AsyncCollectiveTensor": (ASYNC, True, (2, 1)),
}


@pytest.mark.parametrize(
    ("program", "must_compute"),
    [
        pytest.param(*case[:2], marks=since(case[2], "this"), id=name)
        for name, case in NO_MEMORY.items()
    ],
)
def test_tensors_without_memory(tmp_path, program, must_compute):
    run(tmp_path, ALONE.format(program=program, must_compute=must_compute))


# Warnings

STEPS = """
import torch
from weighted_sigmoid_loss.torch import BCEWithLogitsLoss
loss = {wrap}(BCEWithLogitsLoss())
for step in range(50):
    x = torch.zeros(10, requires_grad=True)
    t = torch.zeros(10)
    t[: 1 + step % 10] = 255
    loss(x, t).backward()  # the user's line
"""


@pytest.mark.parametrize("wrap", ["", pytest.param("torch.compile", marks=OPERATOR, id="compiled")])
def test_warning_is_once_and_at_the_users_line(tmp_path, monkeypatch, wrap, request):
    if wrap:
        request.getfixturevalue("inductor")
    # PyTorch compiles anew: where it does, Python forgets what it has warned of.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    said = run(tmp_path, STEPS.format(wrap=wrap))
    warned = [line for line in said.splitlines() if "outside [0, 1]" in line]
    assert len(warned) == 1
    assert "program.py:9: UserWarning" in warned[0]


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ('sys.modules["torch"] = None', "ModuleNotFoundError", "pip install"),
        ('torch.__version__ = "1.7.1"', "ImportError", "1.13 or later, not 1.7.1"),
    ],
    ids=["none", "old"],
)
def test_without_pytorch(tmp_path, setting, error, words):
    program = f"""
    import sys, torch
    {setting}
    try:
        import weighted_sigmoid_loss.torch
    except ImportError as error:
        assert type(error) is {error} and "{words}" in str(error), error
    else:
        raise AssertionError
    """
    run(tmp_path, program)


@pytest.mark.parametrize(
    ("name", "given", "shape", "advice"),
    [
        ("pos_weight", (3,), (2, 3, 4, 5), r"per channel .* \(3, 1, 1\)"),
        ("weight", (2,), (2, 3), r"per instance .* \(2, 1\)"),
        ("weight", (2,), (2, 3, 4), r"per instance .* \(2, 1, 1\)"),
    ],
)
def test_messages_say_the_shape(name, given, shape, advice):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=advice):
        OURS(x, x, **{name: torch.ones(given)})


# Processes

SHARDED = """
import sys, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from weighted_sigmoid_loss.torch import BCEWithLogitsLoss

def losses(rank, mesh, kind, how):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8))
    x, t = torch.randn(10, 6), torch.rand(10, 8)
    criterion = kind(pos_weight=torch.linspace(1, 4, 8))
    if how == "fsdp":
        fully_shard(net, mesh=mesh)
    elif how == "tensor parallel":
        parallelize_module(net, mesh, {{"0": ColwiseParallel(output_layouts=Replicate())}})
    else:  # the scores stay in parts
        style = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
        parallelize_module(net, mesh, {{"0": style}})
        t = distribute_tensor(t, mesh, [Shard(-1)])
        criterion.pos_weight = distribute_tensor(criterion.pos_weight, mesh, [Shard(0)])
    loss = criterion(net(x), t)
    loss.backward()
    grad = net[0].weight.grad
    full = lambda v: v.full_tensor() if hasattr(v, "full_tensor") else v
    return [full(loss).detach(), full(grad)]

def work(rank, path):
    dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for how in ("fsdp", "tensor parallel", "scores in parts"):
        expected = losses(rank, mesh, torch.nn.BCEWithLogitsLoss, how)
        torch.testing.assert_close(losses(rank, mesh, BCEWithLogitsLoss, how), expected)
    dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(sys.argv[1],), nprocs=2)
"""


@since((2, 13), "a fully_shard() that is known to work on the CPU")
def test_fsdp2_and_tensor_parallel(tmp_path):
    run(tmp_path, SHARDED.replace("{{", "{").replace("}}", "}"), tmp_path / "rendezvous")

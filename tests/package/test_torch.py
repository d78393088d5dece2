"""weighted_sigmoid_loss.torch in place of BCEWithLogitsLoss, against PyTorch in double."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run
from pytorch import torch

from weighted_sigmoid_loss import torch as ours

functional = torch.nn.functional
LOSS = ours.binary_cross_entropy_with_logits
DTYPES = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
LIMIT = 4  # ulp, the kernel's guarantee
EXACT = 16 * 2.0**-53  # what PyTorch's exp and log1p may be off themselves, in double
REDUCTIONS = ["none", "mean", "sum"]


def tensors(draw, dtype, shape, random):
    """Broadcast shapes: some axes cut to 1, some leading ones left out."""
    lengths = [size if draw(st.booleans()) else 1 for size in shape]
    lengths = lengths[draw(st.integers(0, len(shape))) :]
    return torch.from_numpy(np.asarray(100 * random.random(lengths))).to(dtype)


@st.composite
def problems(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    shape = draw(st.lists(st.integers(1, 6), max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Scores where PyTorch's own formulas are still good in double.
    input = torch.from_numpy(np.asarray(random.normal(scale=3, size=shape))).to(dtype)
    target = torch.from_numpy(np.asarray(random.random(shape)))
    target = (target < 0.3 if draw(st.booleans()) else target).to(dtype)
    weights = {
        name: tensors(draw, dtype, shape, random) if draw(st.booleans()) else None
        for name in ("weight", "pos_weight")
    }
    if draw(st.booleans()) and len(shape) > 1:
        # Not contiguous, as a permuted layout is.
        input, target = (x.transpose(0, -1).contiguous().transpose(0, -1) for x in (input, target))
    return input, target, weights, draw(st.sampled_from(REDUCTIONS))


def differentiated(loss_of, input, weights):
    """What that function gives in double, and its gradient by autograd."""
    x = input.detach().double().requires_grad_()
    weights = {k: None if v is None else v.double() for k, v in weights.items()}
    loss = loss_of(x, **weights)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), grad


def theirs(input, target, weights, reduction):
    """PyTorch's loss, some versions of which lose the digits of a small one, and its gradient."""

    def loss_of(x, **weights):
        return functional.binary_cross_entropy_with_logits(
            x, target.double(), reduction=reduction, **weights
        )

    return differentiated(loss_of, input, weights)


def exact(input, target, weights, reduction):
    """The formula itself, from PyTorch's softplus, which loses none."""

    def loss_of(x, weight, pos_weight):
        w, p = (1 if values is None else values for values in (weight, pos_weight))
        t = target.double()
        up, down = (functional.softplus(score, threshold=700) for score in (x, -x))
        losses = w * (p * t * down + (1 - t) * up)
        return losses if reduction == "none" else getattr(losses, reduction)()

    return differentiated(loss_of, input, weights)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_any_combination(problem):
    input, target, weights, reduction = problem
    expected_loss, expected_grad = exact(*problem)
    for known, of_theirs in zip((expected_loss, expected_grad), theirs(*problem)):
        torch.testing.assert_close(of_theirs, known, rtol=1e-9, atol=1e-9)
    x = input.clone().requires_grad_()
    loss = LOSS(x, target, reduction=reduction, **weights)
    assert loss.dtype == input.dtype and loss.shape == expected_loss.shape
    loss.sum().backward()
    assert x.grad.shape == x.shape
    with torch.no_grad():
        alone = LOSS(x, target, reduction=reduction, **weights)
    assert torch.equal(alone, loss.detach()) and not alone.requires_grad
    limit = LIMIT * DTYPES[input.dtype] + EXACT
    assert torch.all((loss.detach() - expected_loss).abs() <= limit * expected_loss.abs() + 1e-30)
    # The larger of the two terms: each alone, from hard targets.
    terms = torch.zeros_like(expected_grad)
    for hard in (0.0, 1.0):
        share = target.double() if hard else 1 - target.double()
        part = exact(input, torch.full_like(target, hard), weights, reduction)[1]
        terms = torch.maximum(terms, (share * part).abs())
    assert torch.all((x.grad - expected_grad).abs() <= limit * terms + 1e-30)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_module_is_a_drop_in(reduction):
    generator = torch.Generator().manual_seed(1)
    pos_weight = torch.tensor([1.0, 12.5, 80.0])
    weight = torch.rand((4, 1), generator=generator)
    there = torch.nn.BCEWithLogitsLoss(weight=weight, pos_weight=pos_weight, reduction=reduction)
    here = ours.BCEWithLogitsLoss(
        weight=torch.ones(4, 1), pos_weight=torch.ones(3), reduction=reduction
    )
    assert isinstance(here, torch.nn.BCEWithLogitsLoss)
    here.load_state_dict(there.state_dict())
    x, t = torch.randn((4, 3), generator=generator), torch.rand((4, 3), generator=generator)
    torch.testing.assert_close(here(x, t), there(x, t))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(reduction):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((3, 4, 2), generator=generator, dtype=torch.float64, requires_grad=True)
    t = torch.rand((3, 4, 2), generator=generator, dtype=torch.float64)
    weight = torch.rand((3, 1, 2), generator=generator, dtype=torch.float64)
    pos_weight = torch.rand((4, 1), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: LOSS(x, t, weight, pos_weight=pos_weight, reduction=reduction), (x,)
    )


def test_pos_weight_of_axes_apart():
    """Shape 3 x 1 x 2 in 2 x 3 x 5 x 2: what one axis of channels cannot say."""
    generator = torch.Generator().manual_seed(3)
    x, t = (torch.rand((2, 3, 5, 2), generator=generator, dtype=torch.float64) for _ in range(2))
    pos_weight = torch.rand((3, 1, 2), generator=generator, dtype=torch.float64)
    expected = functional.binary_cross_entropy_with_logits(
        x, t, pos_weight=pos_weight, reduction="none"
    )
    got = LOSS(x, t, pos_weight=pos_weight, reduction="none")
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(5, 3), (1 << 12, 1 << 11)])
def test_backward_again_on_a_retained_graph(shape):
    """The same bits, and nobody sees another's gradient change. The large shape reuses memory."""
    x = torch.linspace(-5, 5, shape[0] * shape[1]).reshape(shape).requires_grad_()
    t = (x.detach() > 2).float()
    loss = LOSS(x, t, reduction="sum")
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, x, retain_graph=True)
    (twice,) = torch.autograd.grad(2 * loss, x)
    assert torch.equal(second, kept)
    assert torch.equal(twice, 2 * kept)
    assert not first.any()


def test_gradients_of_steps_do_not_share_memory():
    """Large ones, whose memory is used again only when nothing has it."""
    x = torch.zeros(1 << 23, requires_grad=True)
    t = torch.zeros(1 << 23)
    (first,) = torch.autograd.grad(LOSS(x, t, reduction="sum"), x)
    row = first[5:7]
    array = first.numpy()
    address = first.data_ptr()
    for held in ("tensor", "view", "array"):
        (other,) = torch.autograd.grad(LOSS(x + 1, t, reduction="sum"), x)
        assert other.data_ptr() != address, held
        assert row.tolist() == [0.5, 0.5]
        del other
        if held == "tensor":
            del first
        if held == "view":
            keep = row.tolist()
            row = torch.tensor(keep)
    del array
    gc.collect()
    x.grad = None
    loss = LOSS(x, t, reduction="sum")
    loss.backward()
    before = x.grad.data_ptr()
    x.grad = None
    LOSS(x, t, reduction="sum").backward()
    assert x.grad.data_ptr() == before
    # Two losses at once, which add up.
    x.grad = None
    (LOSS(x, t, reduction="sum") + LOSS(x, t, reduction="sum")).backward()
    assert torch.all(x.grad == 1)


def test_grad_accumulates():
    x = torch.zeros(3, requires_grad=True)
    for _ in range(2):
        (3 * LOSS(x, torch.zeros(3), reduction="sum")).backward()
    assert x.grad.tolist() == [3, 3, 3]


def test_input_changed_before_backward():
    """The first has its gradient from the forward; any other would have to compute it again."""
    leaf = torch.zeros(3, requires_grad=True)
    x = leaf * 1
    loss = LOSS(x, torch.zeros(3))
    x.add_(1)
    loss.backward(retain_graph=True)
    assert leaf.grad.tolist() == pytest.approx([0.5 / 3] * 3)
    for create_graph in (False, True):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(loss, leaf, retain_graph=True, create_graph=create_graph)


def test_memory_is_let_go_after_backward():
    """A loss that is kept, for a log, keeps no gradient and no scores."""
    import weakref

    x = torch.zeros(3, requires_grad=True)
    scores = 2 * x
    gone = weakref.ref(scores)
    loss = LOSS(scores, torch.zeros(3))
    loss.backward()
    del scores
    gc.collect()
    assert gone() is None
    assert loss.grad_fn.grad is None


def test_empty():
    x = torch.zeros((0, 3), requires_grad=True)
    for reduction in REDUCTIONS:
        expected = functional.binary_cross_entropy_with_logits(x, x.detach(), reduction=reduction)
        got = LOSS(x, x.detach(), reduction=reduction)
        torch.testing.assert_close(got, expected, equal_nan=True)
    LOSS(x, x.detach(), pos_weight=torch.ones(3), reduction="sum").backward()
    assert x.grad.shape == (0, 3)


X = torch.zeros((4, 3))
WRONG = [
    (TypeError, "input: need a tensor", {"input": X.numpy()}),
    (TypeError, "input: need float32, float64, bfloat16", {"input": X.long()}),
    (TypeError, "target: need float32, float64, bfloat16", {"target": X.long()}),
    (TypeError, "target: need float32, float64, bfloat16", {"target": X.bool()}),
    (TypeError, "weight: need real numbers", {"weight": X.cfloat()}),
    (TypeError, "pos_weight: need a tensor", {"pos_weight": 100}),
    # No CUDA is here: this is another device, too.
    (ValueError, "input: need a dense tensor on the CPU, .* meta", {"input": X.to("meta")}),
    (ValueError, "target: need a dense tensor on the CPU", {"target": X.to("meta")}),
    (ValueError, "input: need a dense tensor", {"input": X.to_sparse()}),
    (ValueError, "target: need the input's shape", {"target": X[0]}),
    (ValueError, "weight: shape .* does not broadcast", {"weight": torch.ones(4)}),
    (ValueError, "pos_weight: shape .* does not broadcast", {"pos_weight": torch.ones(2, 4, 3)}),
    (ValueError, "pos_weight: .* not negative", {"pos_weight": torch.tensor([1.0, -1.0, 1.0])}),
    (ValueError, "pos_weight: .* got nan", {"pos_weight": torch.tensor(float("nan"))}),
    (ValueError, "weight: 4 of 12", {"weight": torch.tensor([1.0, -1.0, 1.0])}),
    (ValueError, "weight: 4 of 12", {"weight": torch.tensor([1.0, float("nan"), 1.0])}),
    (ValueError, "reduction: need one of", {"reduction": "average"}),
]


@pytest.mark.parametrize(("error", "words", "wrong"), WRONG, ids=lambda value: str(value)[:30])
def test_wrong_input(error, words, wrong):
    with pytest.raises(error, match=words):
        LOSS(**{"input": X, "target": X, **wrong})


def test_targets_outside_are_warned_of():
    with pytest.warns(UserWarning, match=r"targets outside \[0, 1\]"):
        LOSS(X, X.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(255.0)))


# In processes of their own

BOTH = """
import numpy as np
{imports}
big = torch.zeros(1 << 20)
scores, targets = np.zeros((1 << 19, 2), np.float32), np.zeros((1 << 19, 2), np.float32)
for _ in range(20):
    big = big.exp().log()
    loss, grad = wsl.loss_and_grad(scores, targets, normalization="none")
    loss = LOSS(torch.zeros(1 << 20, requires_grad=True), big)
    loss.backward()
assert abs(loss.item() - np.log(2)) < 1e-6
"""
IMPORTS = {
    "first": ["import torch", "from weighted_sigmoid_loss.torch import *"],
    "last": ["import weighted_sigmoid_loss.numpy", "import torch"],
}
OURS = [
    "from weighted_sigmoid_loss import numpy as wsl",
    "from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits as LOSS",
]
FORKED = """
import multiprocessing, torch
from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits as LOSS

def work(_):
    torch.set_num_threads(1)  # PyTorch's own threads hang after a fork; a DataLoader does this, too
    x = torch.zeros(1 << 18, requires_grad=True)
    loss = LOSS(x, torch.zeros(1 << 18))
    loss.backward()
    return loss.item()

torch.ones(1 << 22).exp().sum().item()  # PyTorch's threads start
{before}
with multiprocessing.get_context("fork").Pool(2) as pool:
    try:
        assert abs(pool.map(work, range(4))[3] - 0.6931) < 1e-3
    except RuntimeError as error:  # PyTorch's refusal, where its backward has had threads
        assert "work(0)" in {before!r} and "Autograd-and-Fork" in str(error), error
"""
LOADER = """
import torch
from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits as LOSS

class Losses(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, i):
        return LOSS(torch.full((1 << 18,), float(i)), torch.zeros(1 << 18))

expected = [Losses()[i].item() for i in range(6)]
loader = torch.utils.data.DataLoader(
    Losses(), batch_size=2, num_workers=2, multiprocessing_context="fork"
)
assert torch.cat(list(loader)).tolist() == expected
"""
PARALLEL = """
import sys, torch
import torch.distributed as distributed
from weighted_sigmoid_loss.torch import BCEWithLogitsLoss

def train(rank):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((2, 64, 20), generator=generator)
    t = (torch.rand((2, 64, 7), generator=generator) < 0.1).float()
    pos_weight = torch.linspace(1, 10, 7)
    losses = {}
    for name, kind in (("ours", BCEWithLogitsLoss), ("theirs", torch.nn.BCEWithLogitsLoss)):
        torch.manual_seed(5)
        net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(20, 7))
        criterion = kind(pos_weight=pos_weight)
        step = torch.optim.SGD(net.parameters(), lr=0.5)
        for _ in range(10):
            step.zero_grad()
            loss = criterion(net(x[rank]), t[rank])
            loss.backward()
            step.step()
        losses[name] = [loss.item(), *net.module.weight.detach().flatten().tolist()]
        both = [torch.zeros(7, 20) for _ in range(2)]
        distributed.all_gather(both, net.module.weight.detach())
        assert torch.equal(*both)
    torch.testing.assert_close(*(torch.tensor(value) for value in losses.values()))


def work(rank, path):
    distributed.init_process_group(
        "gloo", init_method="file://" + path, rank=rank, world_size=2
    )
    train(rank)  # a net that outlives its group may hang, with PyTorch's own loss, too
    distributed.barrier()
    distributed.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(sys.argv[1],), nprocs=2)
"""


@pytest.mark.parametrize("order", sorted(IMPORTS))
def test_two_openmp_runtimes(tmp_path, order):
    run(tmp_path, BOTH.format(imports="\n".join([*IMPORTS[order], *OURS])))


FORWARD = "LOSS(torch.zeros(1 << 18, requires_grad=True), torch.zeros(1 << 18))"


@pytest.mark.parametrize(
    "before", ["", FORWARD, "work(0)"], ids=["first use there", "forward before", "used before"]
)
def test_forked_workers_after_pytorchs_threads(tmp_path, before):
    run(tmp_path, FORKED.format(before=before))


def test_data_loader_workers(tmp_path):
    run(tmp_path, LOADER)


def test_distributed_data_parallel(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    run(tmp_path, PARALLEL, tmp_path / "rendezvous")

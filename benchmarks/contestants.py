"""Who is measured, and where. implementations.py has how each computes a step."""

from dataclasses import dataclass, replace

# As the kernel names its instruction sets, and as people do.
INSTRUCTION_SETS = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "no FMA"}
LAYER, IN_NET, ONE_PASS = "layer", "layer-in-net", "one-pass"

RED, TEAL = "#c8102e", "#008080"
SOLID, DASHED, DOTTED, LONG_DASHED = "-", (0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5))


@dataclass(frozen=True)
class Contestant:
    """One of those in the run; each has a process of its own."""

    family: str  # its name, but for the instruction set
    label: str
    # By device that it is measured on, how many arrays of the problem's size it holds at its peak;
    # these were measured.
    arrays: dict
    bytes: int = 0  # the least that an element of float32 takes, where that is known
    color: str = TEAL  # of its curve
    dashes: object = SOLID
    is_drawn: bool = True
    group: str = ""  # what --only names it by, where that is not its family
    sets: str = ""  # "each" or "best": the instruction sets that it is measured with on a CPU
    isa: str = ""
    is_weighted: bool = True
    by_channel: bool = False  # a weight per channel instead of one for all
    is_loss: bool = True  # False: it computes something else, so that it cannot agree
    may_be_missing: tuple = ()  # the devices where the run continues without it
    case: str = ""  # of cases.py, where it is measured on one

    @property
    def name(self):
        return self.case or (f"{self.family}-{self.isa}" if self.isa else self.family)

    @property
    def known_by(self):
        return self.group or self.family

    def with_set(self, isa):
        return replace(self, isa=isa, label=f"{self.label}, {INSTRUCTION_SETS[isa]}")


def ours(family, label, arrays, least, **more):
    return Contestant(family, label, arrays, least, RED, **more)


def moves(family, label, arrays, least):
    """No loss: it moves the bytes of one."""
    return Contestant(family, label, arrays, least, "#000000", DASHED, is_loss=False)


ON_GPU = ("gpu",)
# In the order of a turn. The loss reads scores and targets, the gradient too, and writes: 20 bytes.
# One pass does so once.
TABLE = [
    moves("floor", "the floor, y = x + t", {"cpu": 3}, 12),
    moves("copy", "the copy, device to device", {"gpu": 2}, 8),
    ours(LAYER, "our layer", {"cpu": 3, "gpu": 3}, 20, group="ours", sets="each"),
    ours(
        IN_NET,
        "our layer in a net",
        {"cpu": 6},
        20,
        group="ours",
        sets="best",
        is_drawn=False,
    ),
    ours(
        "two-passes",
        "our kernel, two passes",
        {"cpu": 3, "gpu": 3},
        20,
        group="ours",
        sets="each",
        is_drawn=False,
    ),
    ours(
        ONE_PASS,
        "our kernel, one pass",
        {"cpu": 3},
        12,
        group="ours",
        sets="each",
        dashes=DOTTED,
    ),
    ours(
        "front-numpy",
        "our package, NumPy",
        {"cpu": 3},
        12,
        group="package",
        sets="best",
        is_drawn=False,
    ),
    ours(
        "front-torch",
        "our package, PyTorch",
        {"cpu": 3},
        12,
        group="package",
        sets="best",
        dashes=LONG_DASHED,
    ),
    ours(
        "front-torch-channels",
        "our package, PyTorch, a weight per channel",
        {"cpu": 3},
        12,
        group="package",
        sets="best",
        is_drawn=False,
        by_channel=True,
    ),
    # What PyTorch takes for any function that is written in Python and gives a gradient.
    Contestant(
        "torch-overhead",
        "PyTorch, an empty function",
        {"cpu": 3},
        group="package",
        is_drawn=False,
        is_loss=False,
    ),
    # What one can write instead of our kernel, in one pass.
    Contestant("plain", "C++ loop, g++ -Ofast", {"cpu": 3}, 12, "#2e8b57"),
    Contestant("highway", "C++ loop, Highway", {"cpu": 3}, 12, "#b8860b"),
    # It may be wrong on a GPU, where it adds up float losses in float.
    Contestant(
        "upstream",
        "upstream's layer, unweighted",
        {"cpu": 4, "gpu": 6},
        color="#1f6fb4",
        is_weighted=False,
        may_be_missing=ON_GPU,
    ),
    Contestant("article", "the article, NumPy", {"cpu": 8}, color="#7f7f7f"),
    Contestant(
        "torch",
        "PyTorch eager",
        {"cpu": 6, "gpu": 8},
        color="#e07b00",
        may_be_missing=ON_GPU,
    ),
    Contestant(
        "torch-channels",
        "PyTorch eager, a weight per channel",
        {"cpu": 6},
        group="torch",
        is_drawn=False,
        by_channel=True,
    ),
    Contestant(
        "torch-compile",
        "PyTorch torch.compile",
        {"cpu": 4, "gpu": 4},
        color="#9c5700",
        may_be_missing=ON_GPU,
    ),
    Contestant("jax", "JAX jit", {"cpu": 7, "gpu": 6}, color="#6a3d9a", may_be_missing=ON_GPU),
]


def measured_on(device, instruction_sets=()):
    """The device's contestants; ours with each of these sets, the best first, or with none."""
    of_sets = {"each": instruction_sets, "best": instruction_sets[:1]}
    found = []
    for contestant in TABLE:
        if device in contestant.arrays:
            sets = of_sets.get(contestant.sets)
            found += map(contestant.with_set, sets) if sets else [contestant]
    return found


def groups(device):
    """What --only can name."""
    return list(dict.fromkeys(contestant.known_by for contestant in measured_on(device)))


def known(name):
    """The contestant of a report's name; one that is not in the table has no colour of others."""
    family, _, isa = name.rpartition("-")
    for contestant in TABLE:
        if name == contestant.family:
            return contestant
        if contestant.sets and (family, isa in INSTRUCTION_SETS) == (contestant.family, True):
            return contestant.with_set(isa)
    return Contestant(name, name, {})

"""What a run is made of on each device."""

from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = 8960  # 256 images of 35 attributes


@dataclass(frozen=True)
class Device:
    name: str
    install: Path  # of the Caffe that was built for it
    sizes: tuple  # numbers of elements
    quick_sizes: tuple
    headline: int  # the size that the report is about
    dtypes: tuple
    baseline: str  # the contestant that does nothing but move one pass's bytes
    # Who is measured whatever --only says: to compare with, and to hold the others to.
    always: tuple
    is_led_by_turn: bool  # before a timed turn comes a whole one; else one step
    holds_each_size: bool  # to our layer's loss, at each size
    has_cases: bool  # the layer's weighted steps are measured, too
    environment: dict = field(hash=False)
    process_bytes: int = 0  # what each process takes of the device's memory, besides its arrays

    def thread_counts(self, cores):
        return sorted({1, cores}) if self.name == "cpu" else [cores]


CPU = Device(
    name="cpu",
    install=ROOT / "build" / "cpu" / "install",
    sizes=tuple(sorted([ATTRIBUTES, *(1 << k for k in range(10, 27, 2))])),
    quick_sizes=(1 << 12, ATTRIBUTES, 1 << 16, 1 << 20),
    headline=1 << 24,
    dtypes=("float32", "float64"),
    baseline="floor",
    always=("floor",),
    is_led_by_turn=False,
    holds_each_size=False,
    has_cases=True,
    environment={"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
)
GPU = Device(
    name="gpu",
    install=ROOT / "build" / "cuda" / "install",
    sizes=tuple(1 << k for k in range(12, 29, 2)),
    quick_sizes=(1 << 12, 1 << 20, 1 << 26),
    headline=1 << 26,
    dtypes=("float32",),
    baseline="copy",
    always=("copy", "layer"),
    # A GPU that was idle clocks up for some milliseconds.
    is_led_by_turn=True,
    # Frameworks compile each size anew. On the CPU it would be upstream's layer that fails: it adds
    # up its losses one by one in its own type.
    holds_each_size=True,
    has_cases=False,
    environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    process_bytes=600 << 20,  # a CUDA context with its modules, roughly
)
DEVICES = {device.name: device for device in (CPU, GPU)}

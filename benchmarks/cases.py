"""What is measured of the layer besides its plain step: every kind of weight, on its own shapes."""

from dataclasses import replace

from benchmarks.contestants import LAYER, known
from benchmarks.problem import Problem
from benchmarks.report import PLAIN

# The shapes below need at least this many elements.
SMALLEST = 1 << 13


def cases(count):
    """(name, label, problem) of each, the plain step first. count is a power of two."""
    wide = (256, count // 256)
    attributes = (count // 32, 32)
    pixels = count // (16 * 64)
    width = 1 << (pixels.bit_length() // 2)
    images = (16, 64, pixels // width, width)
    return [
        case(PLAIN, "plain", images),
        case("channel-wide", "a weight per channel", wide, by_channel=True),
        case("channel-attributes", "a weight per channel", attributes, by_channel=True),
        case("channel-images", "a weight per channel", images, by_channel=True),
        case("element", "a weight per element", images, weight_shape=images),
        case("pixel", "a weight per pixel", images, weight_shape=(16, 1, *images[2:])),
        case("ignore", "a tenth of the targets ignored", images, ignored=0.1),
        case("batch", "class_balance: BATCH", images, class_balance="BATCH"),
        case("instance", "class_balance: INSTANCE", images, class_balance="INSTANCE"),
        case("channel-balance", "class_balance: CHANNEL", images, class_balance="CHANNEL"),
        case("attribute-balance", "class_balance: CHANNEL", attributes, class_balance="CHANNEL"),
    ]


def case(name, words, shape, **parameters):
    label = f"{words}, {' x '.join(map(str, shape))}"
    return name, label, Problem(shape, **parameters)


def case_contestants(instruction_set):
    """The layer again for each case, and so each in a process of its own."""
    layer = replace(known(LAYER), isa=instruction_set)
    return [
        replace(layer, case=name, label=f"{layer.label}, {label}")
        for name, label, _ in cases(SMALLEST)
    ]

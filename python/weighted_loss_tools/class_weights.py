"""Count a data set's labels, and print them with the class weights of a scheme.

The labels' source is what a data layer's is, or named by a net's prototxt.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss import schemes
from weighted_sigmoid_loss.errors import Refused
from weighted_sigmoid_loss.param_str import FLOAT_MAX

from .counts import MOST_CLASSES, count
from .files import read_text
from .labels import open_labels
from .prototxt import PARAMETER, caffe_messages, included, parse, readable

# A scheme's function, and the option that it takes.
SCHEMES = {
    "ratio": (schemes.ratio, None),
    "deepmar": (schemes.deepmar, "sigma"),
    "effective-number": (schemes.effective_number, "beta"),
    "inverse-sqrt": (schemes.inverse_sqrt, None),
}
EXTREME = 100  # positives that weigh this many times the negatives, or the inverse
MOST_NAMED = 10  # channels in a warning


def add_arguments(parser):
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="an LMDB, a list of HDF5 files as HDF5Data's source, an HDF5 or an .npy file",
    )
    parser.add_argument("--net", type=Path, help="read the source of a data layer of this prototxt")
    parser.add_argument("--top", default="label", help="the data layer's top (%(default)s)")
    parser.add_argument("--layer", help="the data layer, where several have this top")
    parser.add_argument(
        "--dataset", help="the HDF5 files' dataset (label; with --net, the name of the top)"
    )
    parser.add_argument(
        "--field",
        choices=("data", "label"),
        help="an LMDB's values, or its class index (index if the first Datum has one)",
    )
    parser.add_argument(
        "--classes",
        type=whole_number,
        metavar="N",
        help="the labels are class indices, below N, for N one-vs-rest targets",
    )
    parser.add_argument("--scale", type=float, help="multiply the labels first: 1/255 for masks")
    parser.add_argument("--ignore-label", type=int, metavar="L", help="labels to leave out")
    parser.add_argument("--axis", type=int, default=1, help="the channel axis (%(default)s)")
    parser.add_argument("--scheme", choices=tuple(SCHEMES), default="effective-number")
    parser.add_argument("--beta", type=share, default=0.999, help="of effective-number (0.999)")
    parser.add_argument("--sigma", type=positive, default=1.0, help="of deepmar (1)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def whole_number(text):
    value = int(text)
    if not 1 <= value <= MOST_CLASSES:
        raise argparse.ArgumentTypeError(f"from 1 to {MOST_CLASSES}")
    return value


def share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("at least 0, below 1")
    return value


def positive(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("above 0")
    return value


def run(arguments):
    path, dataset, field, scale = source(arguments)
    with open_labels(path, dataset, field) as labels:
        if scale != 1 and (labels.indices or arguments.classes):
            raise Refused(f"{path}: class indices are not scaled: leave out --scale")
        try:
            counts = count(labels, arguments, scale)
        except ValueError as error:
            raise Refused(f"{path}: {error}") from None
    report = make_report(labels.words, counts, arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n\n".join([heading(report), table(report), report["prototxt"]]))
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


# Where the labels are


def source(arguments):
    """The path, the HDF5 dataset, the Datum's field and the scale."""
    if (arguments.source is None) == (arguments.net is None):
        raise Refused("give the labels' source, or --net with a prototxt that names it")
    scale = 1.0 if arguments.scale is None else arguments.scale
    if not math.isfinite(scale):
        raise Refused(f"--scale must be finite, it is {scale}")
    if arguments.net is None:
        return arguments.source, arguments.dataset or "label", arguments.field, scale
    path, field, own_scale = net_source(arguments)
    dataset = arguments.dataset or arguments.top
    return path, dataset, arguments.field or field, own_scale if arguments.scale is None else scale


def net_source(arguments):
    """The path, field and scale of the data layer with this top."""
    pb = caffe_messages()
    try:
        net = parse(read_text(arguments.net), pb)
    except Refused as error:
        raise Refused(f"{arguments.net}: {error}") from None
    layer = data_layer(arguments, net, pb)
    if layer.type == "HDF5Data":
        return Path(readable(layer.hdf5_data_param.source)), None, 1.0
    transform = layer.transform_param
    if layer.type != "Data":
        raise Refused(
            f"{arguments.net}: layer '{readable(layer.name)}' is of type {layer.type}: labels are "
            "read from the sources of Data and HDF5Data"
        )
    if tops(layer).index(arguments.top) == 1:
        return Path(readable(layer.data_param.source)), "label", 1.0
    if transform.mean_file or transform.mean_value:
        raise Refused(
            f"{arguments.net}: layer '{readable(layer.name)}' subtracts a mean from the labels: "
            "give their source itself"
        )
    return Path(readable(layer.data_param.source)), "data", transform.scale


def tops(layer):
    return [readable(top) for top in layer.top]


def data_layer(arguments, net, pb):
    """The one layer without bottoms that makes the top in training."""
    made = [
        layer
        for layer in net.layer
        if not layer.bottom
        and arguments.top in tops(layer)
        and arguments.layer in (None, readable(layer.name))
        and included(layer, pb.TRAIN)
    ]
    if len(made) != 1:
        names = ", ".join(readable(layer.name) for layer in made) or "none"
        raise Refused(
            f"{arguments.net}: {len(made)} data layers have the top '{arguments.top}' in training "
            f"({names}): choose one with --top and --layer"
        )
    return made[0]


# The report


def make_report(words, counts, arguments):
    """All that is printed, as a tree for JSON."""
    function, option = SCHEMES[arguments.scheme]
    options = {option: getattr(arguments, option)} if option else {}
    positives, negatives = counts.positives.tolist(), counts.negatives.tolist()
    if not np.any(counts.counted):
        raise Refused(f"{words}: no channel, or nothing but ignored labels or outside [0, 1]")
    try:
        weights = function(positives, negatives, **options)
        overflow = max(weights.cls_weight + weights.neg_weight) > FLOAT_MAX
    except (OverflowError, ZeroDivisionError):
        overflow = True
    if overflow:
        raise Refused(f"the weights of {arguments.scheme} with {options} are beyond float")
    channels = [
        {"positives": p, "negatives": n, "frequency": p / (p + n) if p + n else None}
        for p, n in zip(positives, negatives)
    ]
    for name, values in weights._asdict().items():
        for channel, value in zip(channels, values):
            channel[name] = value
    return {
        "labels": words,
        "instances": counts.instances,
        "ignored": counts.ignored,
        "outside": counts.outside,
        "scheme": {"name": arguments.scheme, **options},
        "channels": channels,
        "warnings": [*counting_warnings(counts), *weight_warnings(channels, arguments.scheme)],
        "prototxt": prototxt(weights, arguments.axis),
    }


def prototxt(weights, axis):
    lines = [
        f"  {name}: {value:.6g}" for name, values in weights._asdict().items() for value in values
    ]
    if axis != 1:
        lines.append(f"  axis: {axis}")
    return "\n".join([f"{PARAMETER} {{", *lines, "}"])


def heading(report):
    scheme = dict(report["scheme"])
    name = scheme.pop("name")
    options = "".join(f", {option} {value:g}" for option, value in scheme.items())
    ignored = f"; {report['ignored']:,} ignored" if report["ignored"] else ""
    return f"{report['labels']}{ignored}\nscheme: {name}{options}"


def table(report):
    """A line a channel."""
    columns = list(report["channels"][0])
    lines = ["channel" + "".join(f"{column:>15}" for column in columns)]
    for number, channel in enumerate(report["channels"]):
        lines.append(f"{number:7}" + "".join(cell(name, channel[name]) for name in columns))
    return "\n".join(lines)


def cell(name, value):
    if value is None:
        return f"{'none':>15}"
    if name in ("positives", "negatives"):
        return f"{value:15,.10g}"
    return f"{value:15.6g}"


# What looks wrong


def counting_warnings(counts):
    if counts.outside:
        yield (
            f"{counts.outside:,} labels are outside [0, 1] and not counted, the first is "
            f"{counts.first_outside:g}: the layer would use them as they are; scale a 0/255 mask "
            "(--scale 0.00392157), name a mark (--ignore-label), or say that these are class "
            "indices (--classes)"
        )


def weight_warnings(channels, scheme):
    without = [i for i, channel in enumerate(channels) if not channel["positives"]]
    if without:
        yield (
            f"no positives in {named(without)}: cls_weight multiplies nothing there, and is "
            "written as 1"
        )
    without = [i for i, channel in enumerate(channels) if not channel["negatives"]]
    if without:
        words = "; ratio would be 0 there, and is written as 1" if scheme == "ratio" else ""
        yield f"no negatives in {named(without)}{words}"
    shifts = [
        abs(math.log(channel["cls_weight"] / channel.get("neg_weight", 1))) for channel in channels
    ]
    extreme = [i for i, shift in enumerate(shifts) if shift > math.log(EXTREME)]
    if extreme:
        yield (
            f"one class weighs more than {EXTREME} times the other in {named(extreme)}: scores "
            f"shift by up to {max(shifts):.1f}, and a few examples make up most of the gradient; "
            "consider effective-number or inverse-sqrt"
        )
    if scheme == "effective-number" and saturated(channels):
        yield (
            "every class has more positives than beta can tell apart, so that all weigh the same: "
            "bring --beta nearer to 1, or take inverse-sqrt"
        )


def named(channels):
    shown = ", ".join(map(str, channels[:MOST_NAMED]))
    more = f" and {len(channels) - MOST_NAMED:,} more" if len(channels) > MOST_NAMED else ""
    return f"channel {shown}{more}" if len(channels) == 1 else f"channels {shown}{more}"


def saturated(channels):
    """Whether counts that differ by more than half give weights within a hundredth."""
    present = [channel for channel in channels if channel["positives"]]
    most, least = (
        pick((channel["positives"] for channel in present), default=0) for pick in (max, min)
    )
    return most > 1.5 * least and max(c["cls_weight"] for c in present) < 1.01

"""Count a data set's labels, and print them with the class weights of a scheme.

The labels' source is what a data layer's is, or named by a net's prototxt.
"""

import argparse
import json
import math
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss import schemes
from weighted_sigmoid_loss.errors import Refused
from weighted_sigmoid_loss.param_str import FLOAT_MAX

from .counts import MOST_CLASSES, count
from .label_warnings import counting_warnings, weight_warnings
from .labels import Source, open_labels
from .net_labels import net_source
from .prototxt import PARAMETER, one_line

# A scheme's function, and the option that it takes.
SCHEMES = {
    "ratio": (schemes.ratio, None),
    "deepmar": (schemes.deepmar, "sigma"),
    "effective-number": (schemes.effective_number, "beta"),
    "inverse-sqrt": (schemes.inverse_sqrt, None),
}


def add_arguments(parser):
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="an LMDB, an HDF5, .npy or .npz file, a table (CSV), a mask, or a list of HDF5 files "
        "or images",
    )
    parser.add_argument("--net", type=Path, help="read the source of a data layer of this prototxt")
    parser.add_argument("--top", default="label", help="the data layer's top (%(default)s)")
    parser.add_argument("--layer", help="the data layer, where several have this top")
    parser.add_argument(
        "--dataset",
        help="the HDF5 files' dataset or the .npz file's array (label; with --net, the name of the "
        "top)",
    )
    parser.add_argument(
        "--field",
        choices=("data", "label"),
        help="an LMDB's or an image list's values, or its class numbers (label, if any two differ)",
    )
    parser.add_argument(
        "--classes",
        type=whole_number,
        metavar="N",
        help="the labels are class indices, below N, for N one-vs-rest targets",
    )
    parser.add_argument("--scale", type=number, help="multiply the labels first: 1/255 for masks")
    parser.add_argument(
        "--shift", type=number, default=0.0, help="then add this: --scale 1/2 --shift 1/2 for -1, 1"
    )
    parser.add_argument("--ignore-label", type=int, metavar="L", help="labels to leave out")
    parser.add_argument(
        "--ignore-soft-targets", action="store_true", help="leave out labels between 0 and 1"
    )
    parser.add_argument(
        "--axis", type=int, help="the channel axis (1; N x H x W are masks of one channel)"
    )
    parser.add_argument("--scheme", choices=tuple(SCHEMES), default="effective-number")
    parser.add_argument("--beta", type=share, default=0.999, help="of effective-number (0.999)")
    parser.add_argument("--sigma", type=positive, default=1.0, help="of deepmar (1)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def number(text):
    """A number or a fraction, as 1/255."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a finite number or a fraction, not {text!r}")
    return value


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
    source = chosen_source(arguments)
    labels, pieces = open_labels(source)
    with closing(pieces):
        changed = source.scale != 1 or arguments.shift != 0
        if changed and (labels.indices or arguments.classes):
            raise Refused(f"{source.path}: class indices are neither scaled nor shifted")
        try:
            counts = count(labels, pieces, arguments, source.scale)
        except ValueError as error:
            raise Refused(f"{source.path}: {error}") from None
    looks = counting_warnings(counts, labels.indices, changed, arguments.axis)
    warnings = [*source.notes, *labels.notes, *looks]
    report = make_report(labels.words, counts, warnings, arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n\n".join([heading(report), table(report), report["prototxt"]]))
    for warning in report["warnings"]:
        print(f"warning: {one_line(warning)}", file=sys.stderr)
    return 0


def chosen_source(arguments):
    """What the arguments name; they override what a net says."""
    if (arguments.source is None) == (arguments.net is None):
        raise Refused("give the labels' source, or --net with a prototxt that names it")
    if arguments.net is None:
        source = Source(arguments.source)
    else:
        source = net_source(arguments.net, arguments.top, arguments.layer)
    given = {name: getattr(arguments, name) for name in ("dataset", "field", "scale")}
    return source._replace(**{k: v for k, v in given.items() if v is not None})


# The report


def make_report(words, counts, warnings, arguments):
    """All that is printed, as a tree for JSON."""
    function, option = SCHEMES[arguments.scheme]
    options = {option: getattr(arguments, option)} if option else {}
    positives, negatives = counts.positives.tolist(), counts.negatives.tolist()
    if not np.any(counts.counted):
        raise Refused(f"{words}: nothing to count: {'; '.join(warnings) or 'all is ignored'}")
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
        "warnings": [*warnings, *weight_warnings(channels, arguments.scheme)],
        "prototxt": prototxt(weights, arguments),
    }


def prototxt(weights, arguments):
    lines = [
        f"  {name}: {value:.6g}" for name, values in weights._asdict().items() for value in values
    ]
    if arguments.axis not in (None, 1):
        lines.append(f"  axis: {arguments.axis}")
    if arguments.ignore_soft_targets:
        lines.append("  ignore_soft_targets: true")
    return "\n".join([f"{PARAMETER} {{", *lines, "}"])


def heading(report):
    scheme = dict(report["scheme"])
    name = scheme.pop("name")
    options = "".join(f", {option} {value:g}" for option, value in scheme.items())
    ignored = f"; {report['ignored']:,} ignored" if report["ignored"] else ""
    return f"{one_line(report['labels'])}{ignored}\nscheme: {name}{options}"


def table(report):
    """One line per channel."""
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

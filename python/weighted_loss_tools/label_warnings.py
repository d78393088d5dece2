"""What looks wrong about a data set's labels or the weights made from them, and what to do."""

import math

from .counts import MOST_CLASSES

EXTREME = 100  # positives that weigh this many times the negatives, or the inverse
MOST_NAMED = 10  # channels in a warning
COMPARING = ("effective-number", "inverse-sqrt")  # schemes that weigh channels against channels


def counting_warnings(counts, indices, changed, axis):
    """indices: whether they are class indices that the source has beside values.

    changed: whether --scale or --shift has made the labels what they are.
    axis: that of the channels, if it was given.
    """
    if len(counts.shapes) > 1:
        yield "the labels are of several sizes: in a net they take batch_size: 1"
    elif axis is None and counts.shapes:
        yield from shape_warnings(*counts.shapes, counts.instances)
    if indices and counts.instances > 2 and max(counts.positives, default=0) == 1:
        yield "no class occurs twice: if these number the records, --field data counts the values"
    after = " after --scale and --shift" if changed else ""
    if counts.two_values():
        low, high = counts.two_values()
        here, net = "--scale 1/2 --shift 1/2", "a Power layer { scale: 0.5 shift: 0.5 }"
        if low == 0:
            here = f"--scale 1/{high:.9g}"
            net = f"scale: {1 / high:.9g} (transform_param, or a Power layer after HDF5Data)"
        yield (
            f"the labels are {low:g} and {high:g}{after}, and counted as 0 and 1, as by {here}; "
            f"the layer would use them as they are: make them 0 and 1 there too, by {net}"
        )
    elif counts.outside:
        yield (
            f"{counts.outside:,} labels are outside [0, 1]{after} and not counted, the first is "
            f"{counts.first_outside:g}: the layer would use them as they are; {advice(counts)}"
        )


def shape_warnings(shape, instances):
    """What the shape of an instance lets suspect."""
    if len(shape) == 3 and (shape[0] == shape[1] != shape[2] or shape[1] > 4 * shape[2]):
        yield f"{shape[0]:,} channels: if the channels come last, N x H x W x C, --axis 3"
    if shape == (instances,) and instances > MOST_NAMED:
        yield f"{shape[0]:,} channels: if it is one mask of H x W, save it as 1 x H x W"


def advice(counts):
    """By which values there are, those between 0 and 1 too."""
    outside = sorted(counts.values_outside)
    low, high = outside[0], outside[-1]
    if math.isinf(low) or math.isinf(high):
        return "look for infinity in the data"
    if outside == [-1]:
        return (
            "if -1 marks labels to leave out, --ignore-label -1; if 0 does, between -1 for no and "
            "1 for yes, --scale 1/2 --shift 1/2 --ignore-soft-targets"
        )
    if outside == [255] and not counts.has_zero and not counts.has_soft:
        return "if 255 is a -1 that was written as a byte, write the labels to float_data"
    if outside == [2] and not counts.has_zero and not counts.has_soft:
        return "labels of 1 and 2 become 0 and 1 with --shift -1"
    if counts.has_soft or any(value != int(value) for value in outside):
        if low >= 0:
            return f"if they go from 0 to {high:.9g}, --scale 1/{high:.9g}"
        return "are they labels? scores and features have such values (--field, --dataset, --top)"
    return advice_on_integers(counts, [int(value) for value in outside])


def advice_on_integers(counts, outside):
    """Marks, gray masks and class numbers."""
    high = outside[-1]
    marks = [value for value in outside if value in (-1, 255)]
    numbers = [value for value in outside if value not in marks] or outside
    dense = 2 * (len(numbers) + counts.has_zero + counts.has_one) > numbers[-1]
    several = len(outside) > 1
    found = []
    if not several:
        found.append(f"if {high} marks labels to leave out, --ignore-label {high}")
    if several and not dense and outside[0] >= 0 and high <= 255:
        found.append(
            f"gray masks take --scale 1/{high}, and --ignore-soft-targets leaves out what is "
            f"neither 0 nor {high}"
        )
    if (several or dense) and numbers[0] > 0 and numbers[-1] < MOST_CLASSES:
        mark = f" --ignore-label {marks[0]}" if marks and numbers != outside else ""
        found.append(f"class numbers take --classes {numbers[-1] + 1}{mark}")
    return "; ".join(found) or "are they labels, and not ids of the samples?"


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
        milder = "effective-number or inverse-sqrt"
        if scheme == "deepmar":
            milder = "a larger --sigma"
        elif scheme in COMPARING or len(channels) == 1:
            milder = "deepmar"
        yield (
            f"one class weighs more than {EXTREME} times the other in {named(extreme)}: scores "
            f"shift by up to {max(shifts):.1f}, and a few examples make up most of the gradient; "
            f"consider {milder}"
        )
    if scheme in COMPARING:
        yield from comparing_warnings(channels, scheme)


def comparing_warnings(channels, scheme):
    """Where the weights say nothing, for all are 1."""
    present = [channel for channel in channels if channel["positives"]]
    if not present or max(channel["cls_weight"] for channel in present) >= 1.01:
        return
    positives = [channel["positives"] for channel in present]
    if max(positives) > 1.5 * min(positives):
        yield (
            "every class has more positives than beta can tell apart, so that all weigh the same: "
            "bring --beta nearer to 1, or take inverse-sqrt"
        )
        return
    if len(channels) == 1:
        reason = "there is one channel"
    elif len(present) == 1:
        reason = "one alone has positives"
    else:
        reason = "the channels are equally rare"
    yield (
        f"{scheme} compares channels with each other only, and {reason}: the weights are 1, "
        "whatever the share of positives; --scheme ratio or deepmar weighs positives against "
        "negatives"
    )


def named(channels):
    shown = ", ".join(map(str, channels[:MOST_NAMED]))
    more = f" and {len(channels) - MOST_NAMED:,} more" if len(channels) > MOST_NAMED else ""
    return f"channel {shown}{more}" if len(channels) == 1 else f"channels {shown}{more}"

"""Rewrite the article's Python layer in a net's prototxt to the native layer.

protobuf's text_format says which layers these are and what they mean; text_spans says where they
stand, so that only what must change does: comments, indentation and line ends stay. The new text
is parsed before it is written, and must be the very net that changing the message itself gives.
"""

import bisect
import re
import subprocess
import sys
from pathlib import Path

from weighted_sigmoid_loss.errors import Failure, Refused
from weighted_sigmoid_loss.param_str import read_cls_weight

from . import text_spans
from .files import read_bytes, write_atomic
from .prototxt import NATIVE, PARAMETER, messages, one_line, parse, readable, title

ARTICLE = "SigmoidCrossEntropyWeightLossLayer"  # module and class
GONE = "\0"  # stands for a removed field until the white space around it is tidied


def add_arguments(parser):
    parser.add_argument("net", type=Path, help="a net's prototxt; rewritten in place")
    parser.add_argument(
        "--check",
        action="store_true",
        help="print the change as a diff and write nothing; exit status 1 if there is one",
    )
    parser.add_argument("--module", default=ARTICLE, help="the layers' module (%(default)s)")
    parser.add_argument("--layer", default=ARTICLE, help="the layers' class (%(default)s)")
    parser.add_argument(
        "--element-weights",
        action="store_true",
        help="a third bottom has element weights, as the native layer's has",
    )


def run(arguments):
    """Rewrite the file, or print the change; return the exit status."""
    path = arguments.net
    old = read_bytes(path)
    try:
        text, notes = migrate(
            old.decode("latin-1"), arguments.module, arguments.layer, arguments.element_weights
        )
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    new = text.encode("latin-1")
    if arguments.check:
        print_diff(path, new)
    elif new != old:
        write_atomic(path, new)
    for note in notes:
        print(one_line(f"{path}: {note}"), file=sys.stderr)
    return 1 if arguments.check and new != old else 0


def migrate(text, module=ARTICLE, layer=ARTICLE, element_weights=False):
    """Return the prototxt with the layers of that Python class made native, and notes on them.

    text has a character for each byte of the file.
    """
    net = parse(text)
    chosen = [i for i, one in enumerate(net.layer) if is_python(one, module, layer)]
    if not chosen:
        return text, [nothing_to_do(net, module, layer)]
    edits, notes = [], []
    spans, comments = locate(text, net)
    for i in chosen:
        name = title(net.layer[i])
        try:
            native, layer_notes = native_layer(net.layer[i], net.force_backward, element_weights)
            edits += layer_edits(text, spans[i], comments, net.layer[i], native)
        except Refused as error:
            raise Refused(f"{name}: {error}") from None
        notes += [f"{name}: {note}" for note in layer_notes]
        net.layer[i].CopyFrom(native)
    edited = apply_edits(text, edits)
    if parse(edited) != net:
        raise Failure("the rewritten net would not be the one it should; nothing was written")
    return edited, notes


def locate(text, net):
    """Return each layer's span, in the order of net.layer, and where the comments start."""
    try:
        whole, comments = text_spans.parse(text)
    except ValueError as error:
        raise Refused(f"the layers cannot be located: {error}; nothing was written") from None
    spans = [span for field in whole.named("layer") for span in field.values]
    if len(spans) != len(net.layer):
        raise Failure("the layers cannot be located; nothing was written")
    return spans, comments


def is_python(layer, module, class_name):
    python = layer.python_param
    return layer.type == "Python" and (python.module, python.layer) == (module, class_name)


def nothing_to_do(net, module, class_name):
    python = [layer.python_param for layer in net.layer if layer.type == "Python"]
    others = ", ".join(readable(f"{one.module}.{one.layer}") for one in python) or "none"
    return (
        f"nothing to rewrite: no Python layer {module}.{class_name} "
        f"(Python layers in it: {others}; --module and --layer choose another)"
    )


def native_layer(layer, force_backward, element_weights=False):
    """Return the native layer that trains as this Python layer does, and notes for the user."""
    check_bottoms(layer, element_weights)
    for name in ("loss_param", PARAMETER):
        if layer.HasField(name):
            raise Refused(f"it has {name}, which a Python layer ignores: remove that first")
    for bottom, name in ((1, "targets"), (2, "element weights")):
        if any(layer.propagate_down[bottom : bottom + 1]):
            raise Refused(
                f"propagate_down is true for the {name} (bottom {bottom}), which have no gradient: "
                "make it false first"
            )
    try:
        cls_weight = read_cls_weight(layer.python_param.param_str)
    except ValueError as error:
        raise Refused(readable(str(error))) from None
    loss_weight, notes = native_loss_weight(list(layer.loss_weight), force_backward)

    native = type(layer)()
    native.CopyFrom(layer)
    native.type = NATIVE
    native.ClearField("python_param")
    native.loss_weight[:] = [loss_weight]
    native.loss_param.normalization = messages().LossParameter.NONE
    getattr(native, PARAMETER).cls_weight.append(cls_weight)
    getattr(native, PARAMETER).stop_on_nan = True
    if len(layer.bottom) > 2:
        notes.append(
            f"warning: '{readable(layer.bottom[2])}' weighs the loss and the gradient now: a class "
            "whose Backward leaves it out trains otherwise; for its training, remove that bottom"
        )
    return native, [f"becomes {NATIVE}, cls_weight {spelled(cls_weight)}", *notes]


def check_bottoms(layer, element_weights):
    """The article's class has two bottoms; some have given theirs a third, of element weights."""
    if len(layer.bottom) == 3 and len(layer.top) == 1 and not element_weights:
        raise Refused(
            "it has a third bottom, which the article's class does not: if that class multiplies "
            "each element's loss by it, and its gradient in Backward, these are the native layer's "
            "element weights: check that and add --element-weights"
        )
    if len(layer.bottom) not in (2, 3) or len(layer.top) != 1:
        raise Refused("it must have two bottoms, scores and targets, and one top")


def native_loss_weight(values, force_backward):
    """Return the loss_weight that keeps the training as it was under the article's layer.

    That layer has one gradient whatever its loss_weight, where Caffe runs Backward at all: if
    loss_weight is not 0 or with force_backward.
    """
    if len(values) > 1:
        raise Refused("it has more than one loss_weight, and one top: leave one")
    if values == [1]:
        return 1, []
    if not values:
        return 1, [
            "warning: it had no loss_weight and has 1 now: if it was not trained on, only shown, "
            "write loss_weight: 0"
        ]
    if values == [0] and not force_backward:
        return 0, ["warning: loss_weight stays 0, so that the net does not train on this loss"]
    return 1, [
        f"warning: loss_weight was {values[0]:.9g}, which the article's layer ignores in training, "
        f"and is 1 now: write {values[0]:.9g} again if it is to count, as it does in this "
        "project's Python layer"
    ]


def spelled(weight):
    """100, not 100.0; otherwise the shortest digits that are this number."""
    text = repr(weight)
    return text[:-2] if text.endswith(".0") else text


def layer_edits(text, span, comments, old, new):
    """The edits, as (start, end, replacement), that turn the layer at the span into the new one."""
    python = only(span, "python_param")
    param_str = only(python.values[0], "param_str")
    others = [field for field in python.values[0].fields if field is not param_str]
    (type_value,) = only(span, "type").values
    loss_weights = [value for field in span.named("loss_weight") for value in field.values]

    quote = text[type_value.start]
    cls_weight = spelled(read_cls_weight(old.python_param.param_str))
    changed = [
        (type_value.start, type_value.end, quote + NATIVE + quote),
        (param_str.start, param_str.end, f"cls_weight: {cls_weight}"),
        *((field.start, field.after, GONE) for field in others),
    ]
    if old.loss_weight != new.loss_weight:
        changed += [(value.start, value.end, "1") for value in loss_weights]
    for start, end, _ in changed:
        next_comment = bisect.bisect(comments, start)
        if comments[next_comment : next_comment + 1] and comments[next_comment] < end:
            line = text.count("\n", 0, start) + 1
            raise Refused(f"a comment inside the field at line {line} would be lost: move it first")

    added = ["loss_param { normalization: NONE }"]
    if not loss_weights:
        added.insert(0, "loss_weight: 1")
    return [
        *changed,
        (python.start, python.start + len("python_param"), PARAMETER),
        insertion(text, param_str, ["stop_on_nan: true"]),
        insertion(text, python, added),
    ]


def only(span, name):
    """The one field of that name."""
    found = span.named(name)
    if len(found) != 1:
        raise Refused(f"it has {name} {len(found)} times: leave one")
    return found[0]


def insertion(text, field, added):
    """The edit that adds fields after this one, on lines of their own if this one has its own."""
    start = field.start
    while text[start - 1 : start] in (" ", "\t"):
        start -= 1
    rest = re.compile(r"[ \t]*(?:#[^\n]*?)?(?=(\r?\n))").match(text, field.after)
    if text[start - 1 : start] not in ("", "\n") or not rest:
        return field.after, field.after, "".join(f" {one}" for one in added)
    indent = text[start : field.start]
    return rest.end(), rest.end(), "".join(rest[1] + indent + one for one in added)


def apply_edits(text, edits):
    """Make the edits, and leave no white space where a field is gone."""
    parts, done = [], 0
    for start, end, replacement in sorted(edits):
        parts += [text[done:start], replacement]
        done = end
    text = "".join([*parts, text[done:]])
    # The look-behinds have each run of blanks looked at once, however long it is.
    text = re.sub(r"(?m)^[ \t]*\0[ \t\0]*\r?\n", "", text)
    text = re.sub(r"(?<![ \t])[ \t]*\0[ \t\0]*(?=\r?\n)", "", text)
    return re.sub(r"\0[ \t]*", "", text)


def print_diff(path, new):
    """A unified diff, which patch takes. difflib's time would be the number of layers squared."""
    argv = ["diff", "--text", "--unified", f"--label={path}", f"--label={path}", "--", path, "-"]
    done = subprocess.run(argv, input=new, stdout=subprocess.PIPE)
    if done.returncode > 1:
        raise Failure("the program diff failed")
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()  # an output that takes nothing is known before the notes are printed

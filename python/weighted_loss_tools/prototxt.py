"""A net's prototxt as Caffe's message, and how its names are shown.

Texts here have a character for each byte of the file, whatever the encoding of names and comments.
"""

import contextlib
import os
import sys
import warnings
from pathlib import Path

from weighted_sigmoid_loss.errors import Failure, Refused

NATIVE = "SigmoidCrossEntropyWeightLoss"
PARAMETER = "sigmoid_cross_entropy_weight_loss_param"


def caffe_messages():
    """Caffe's messages, of any Caffe."""
    try:
        from caffe.proto import caffe_pb2
    except ImportError as error:
        raise Failure(
            f"pycaffe is needed and cannot be imported ({error}): run "
            "build/cpu/install/bin/weighted-loss, which has its own"
        ) from None
    return caffe_pb2


def messages():
    """Caffe's messages, as generated for a Caffe that has the native layer."""
    caffe_pb2 = caffe_messages()
    if PARAMETER not in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        raise Failure(
            f"the Caffe in {Path(caffe_pb2.__file__).parent} has no layer {NATIVE}: put it in with "
            "scripts/apply.py, or run build/cpu/install/bin/weighted-loss"
        )
    return caffe_pb2


def parse(text, pb=None):
    """Return the text as a NetParameter of these messages, or those with the native layer."""
    net = (pb or messages()).NetParameter()
    from google.protobuf import text_format

    if "\0" in text:
        raise Refused("it has a NUL byte, so it is not a text file: give a net's prototxt")
    if "\\" * 100 in text:
        # protobuf's time for them is their number squared.
        raise Refused("it has 100 backslashes in a row, which no net needs: take them out")
    try:
        text_format.Parse(text, net)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        words = one_line(readable(str(error)))
        if len(words) > 500:  # it has the whole line
            words = f"{words[:200]} ... {words[-200:]}"
        raise Refused(f"not a net's prototxt: {words}") from None
    if net.layers:
        raise Refused(
            "it has layers in Caffe's old format, `layers { ... }`: upgrade it first with Caffe's "
            "tool upgrade_net_proto_text"
        )
    return net


def parse_binary(data):
    """The model as a message; what protobuf itself would only warn of is refused."""
    model = messages().NetParameter()
    if not takes_all(model, data):
        raise Refused("truncated or damaged, or no .caffemodel")
    return model


def takes_all(message, data):
    """Fill the message from its binary form; return whether that is whole."""
    from google.protobuf.message import DecodeError

    try:
        # At a stray end of a group it only warns, and leaves out all that follows.
        with silent_errors(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            return message.ParseFromString(data) in (None, len(data)) and not warned
    except (DecodeError, ValueError, RecursionError):
        return False


@contextlib.contextmanager
def silent_errors():
    """Of C++ code, as protobuf's, which says on stderr what the one line says."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def included(layer, phase):
    """Whether a net of this phase, of level 0 and no stage, has the layer: Caffe's own rules."""
    if layer.include:
        return any(meets(rule, phase) for rule in layer.include)
    return not any(meets(rule, phase) for rule in layer.exclude)


def meets(rule, phase):
    return (
        (not rule.HasField("phase") or rule.phase == phase)
        and (not rule.HasField("min_level") or rule.min_level <= 0)
        and (not rule.HasField("max_level") or rule.max_level >= 0)
        and not rule.stage
    )


def title(layer):
    return f"layer '{one_line(readable(layer.name))}'"


def title_and_type(layer):
    return f"{title(layer)} of type {one_line(readable(layer.type))}"


def readable(text):
    """A text of the file, for people: its bytes are most likely UTF-8."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def one_line(text):
    """The text as one line for a terminal: a name's control characters are shown, not obeyed."""
    return "".join(
        c if c.isprintable() else " " if c in "\n\t" else ascii(c)[1:-1] for c in str(text)
    )

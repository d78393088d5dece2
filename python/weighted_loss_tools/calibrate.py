"""Fold the class weights out of a trained model, so that its sigmoids are probabilities.

Weights a of the positives and b of the negatives shift a channel's scores, at the loss's optimum,
by log(a / b). This subtracts it from the bias of the layer that makes the scores, and writes a
model and a prototxt to deploy, with Sigmoid in place of the loss. Both nets are run, and compared.
"""

import os
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss.errors import Failure, Refused

from . import nets
from .deploy import deploy_net
from .files import read_bytes, read_text
from .prototxt import (
    NATIVE,
    PARAMETER,
    one_line,
    parse,
    readable,
    silent_errors,
    title,
    title_and_type,
)
from .score_layers import (
    MAKERS,
    find_losses,
    find_path,
    parameter,
    refuse_readers,
    refuse_shared_bias,
    training_notes,
)
from .trained_model import bias_in, check_fits, check_record, read_model, record_sigmoid

# loss, maker: layers. outputs: of the maker. weights: their cls_weight and neg_weight. before,
# after: their biases.
Fold = namedtuple("Fold", "loss maker outputs weights before after")
Calibrated = namedtuple("Calibrated", "prototxt model folds notes")


def add_arguments(parser):
    parser.add_argument("net", type=Path, help="the prototxt that the model was trained with")
    parser.add_argument("model", type=Path, help="its .caffemodel; both are only read")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PREFIX",
        help="write PREFIX.caffemodel and PREFIX.prototxt (the model's path with -calibrated)",
    )
    parser.add_argument("--layer", help=f"the {NATIVE} to fold out, where there are several")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="BLOB=N,C,H,W",
        help="the shape of an input that came from a data layer",
    )


def run(arguments):
    shapes = dict(map(read_shape, arguments.shape))
    prefix = arguments.output or arguments.model.with_name(f"{arguments.model.stem}-calibrated")
    targets = [prefix.with_name(prefix.name + suffix) for suffix in (".caffemodel", ".prototxt")]
    for target in targets:
        if os.path.lexists(target):
            raise Refused(f"{target}: exists, and nothing is overwritten: name another --output")
    text = read_text(arguments.net)
    model = read_bytes(arguments.model)
    try:
        net = parse(text)
    except Refused as error:
        raise Refused(f"{arguments.net}: {error}") from None
    try:
        trained = read_model(model)
    except Refused as error:
        raise Refused(f"{arguments.model}: {error}") from None
    done = calibrate(net, trained, arguments.layer, shapes)
    write_new(dict(zip(targets, (done.model, done.prototxt.encode("latin-1")))))
    print("\n\n".join(map(table, done.folds)))
    print(f"\nwrote {targets[0]} and {targets[1]}")
    for note in done.notes:
        print(f"warning: {one_line(note)}", file=sys.stderr)
    return 0


def read_shape(text):
    blob, _, dims = text.rpartition("=")
    try:
        shape = [int(size) for size in dims.split(",")]
    except ValueError:
        shape = [0]
    if not blob or min(shape) < 1:
        raise Refused(f"--shape {text}: write it as BLOB=N,C,H,W, in whole numbers")
    return blob, shape


def calibrate(net, model, chosen=None, shapes=None):
    """Return what to deploy: a prototxt, a model (this message, changed), folds and notes."""
    losses = find_losses(net, chosen)
    paths = {i: find_path(net, i) for i in losses}
    makers = {i: [k for k in paths[i] if net.layer[k].type in MAKERS] for i in losses}
    notes = [note for i in losses for note in training_notes(net, i, losses, paths[i])]
    deploy, kept = deploy_net(net, losses, shapes or {})
    for i in kept:
        check_fits(net.layer[i], model)
    all_makers = sorted(set().union(*makers.values()))
    for i in all_makers:
        refuse_readers(net, kept, i)
        refuse_shared_bias(net, i)
    before = as_text(deploy), as_bytes(model)
    ends = np.cumsum([parameter(net.layer[i]).num_output for i in all_makers])
    first = dict(zip(all_makers, [0, *ends.tolist()]))
    sources = find_sources(net, losses, first, before[0], model)
    weights = {i: channel_weights(net.layer[i], sources[i].shape) for i in losses}
    for i in losses:
        check_record(net.layer[i], model)
    folds = []
    for i in losses:
        folds += fold(net, i, makers[i], first, sources[i], weights[i], model)
        record_sigmoid(net.layer[i], model)
    refuse_common_outputs(folds)
    for i in all_makers:
        set_bias_term(deploy, net.layer[i])
    after = as_text(deploy), as_bytes(model)
    check_scores(net, weights, before, after)
    return Calibrated(*after, folds, notes)


def as_text(net):
    from google.protobuf import text_format

    return text_format.MessageToString(net, as_utf8=True)


def as_bytes(model):
    with silent_errors():  # of names that are not UTF-8
        return model.SerializeToString()


def find_sources(net, losses, first, text, model):
    """{loss: for each element of its scores, the number of the output that made it}.

    first: {maker: the number of its first output}.
    """
    tops = {}
    for i, number in first.items():
        layer = net.layer[i]
        axis = -1 if layer.type == "InnerProduct" else layer.convolution_param.axis
        tops[readable(layer.name)] = readable(layer.top[0]), axis, number
    scores = {i: readable(net.layer[i].bottom[0]) for i in losses}
    found, with_blobs = nets.run(nets.follow, text, tops, list(scores.values()))
    for name in with_blobs:
        if sum(one.name == name for one in model.layer) != 1:
            raise Refused(f"the model does not fit the net: it has no layer '{name}', or several")
    return {i: found[blob] for i, blob in scores.items()}


def channel_weights(loss, shape):
    """cls_weight and neg_weight of each element of scores of this shape."""
    own = getattr(loss, PARAMETER)
    both = []
    for name in ("cls_weight", "neg_weight"):
        given = np.array(getattr(own, name) or [1.0], np.float64)
        if len(given) > 1:
            in_range = -len(shape) <= own.axis < len(shape)
            if not in_range or shape[own.axis] != len(given):
                raise Refused(
                    f"{title(loss)}: {name} has {len(given)} values, which the scores' axis "
                    f"{own.axis} has not: they are {' x '.join(map(str, shape))}"
                )
            given = given.reshape(-1, *[1] * (len(shape) - 1 - own.axis % len(shape)))
        both.append(np.broadcast_to(given, shape))
    return both


def fold(net, loss, makers, first, sources, weights, model):
    """Subtract log(a / b) from the biases of the makers in the model; return a Fold for each."""
    numbers, where, inverse = np.unique(sources, return_index=True, return_inverse=True)
    ravelled = np.stack([one.ravel() for one in weights])
    if np.any(ravelled[:, where][:, inverse.ravel()] != ravelled):
        raise Refused(
            f"{title(net.layer[loss])} has several weights for the scores of one output of "
            f"{', '.join(title_and_type(net.layer[i]) for i in makers)}, which has one bias"
        )
    folds = []
    for i in makers:
        maker = net.layer[i]
        own = (numbers >= first[i]) & (numbers < first[i] + parameter(maker).num_output)
        outputs, weights_of = numbers[own] - first[i], ravelled[:, where[own]]
        bias = bias_in(maker, model)
        before = np.array(bias, np.float64)
        if not np.all(np.isfinite(before)):
            raise Refused(f"{title(maker)} has a bias in the model that is not finite: it diverged")
        after = before.copy()
        after[outputs] -= np.log(weights_of[0]) - np.log(weights_of[1])
        bias[:] = after.tolist()
        after = np.array(bias, np.float64)
        folds.append(
            Fold(net.layer[loss], maker, outputs, weights_of, before[outputs], after[outputs])
        )
    return folds


def refuse_common_outputs(folds):
    for k, one in enumerate(folds):
        for other in folds[:k]:
            common = np.intersect1d(one.outputs, other.outputs).size
            if one.maker.name == other.maker.name and common:
                raise Refused(
                    f"{title(one.loss)} and {title(other.loss)} are on the same scores, which "
                    "their weights shift together: put the sum of the weights into one of them"
                )


def set_bias_term(deploy, maker):
    for layer in deploy.layer:
        if layer.name == maker.name and layer.type == maker.type and not parameter(layer).bias_term:
            parameter(layer).bias_term = True


def check_scores(net, weights, before, after):
    """Refuse what does not give p / (p + (a / b) (1 - p)): scores that differ by log(a / b)."""
    blobs = {i: readable(net.layer[i].bottom[0]) for i in weights}
    old, new = (nets.run(nets.outputs, *one, list(blobs.values())) for one in (before, after))
    for i, blob in blobs.items():
        shift = np.log(weights[i][0]) - np.log(weights[i][1])
        allowed = 1e-4 * (1 + np.abs(old[blob]) + np.abs(shift))
        # Not a number is not allowed either.
        if not np.all(np.abs(new[blob] - (old[blob] - shift)) <= allowed):
            raise Refused(
                f"on random input the scores of {title(net.layer[i])} do not shift by log(a / b): "
                "they are not finite, or something else in the net changes them"
            )


# What the command leaves


def table(one):
    """A line for each output of the layer."""
    lines = [
        f"{title(one.loss)}: log(a / b) folded out of the bias of {title_and_type(one.maker)}",
        "channel" + "".join(f"{c:>13}" for c in ("a", "b", "log(a / b)", "bias", "new bias")),
    ]
    columns = zip(*one.weights, np.log(one.weights[0] / one.weights[1]), one.before, one.after)
    for c, row in zip(one.outputs, columns):
        lines.append(f"{c:7}" + "".join(f"{value:13.6g}" for value in row))
    return "\n".join(lines)


def write_new(files):
    """Write {path: bytes}, all or none, where nothing is: each appears whole."""
    written = []
    try:
        for path, data in files.items():
            with tempfile.NamedTemporaryFile(prefix=".weighted-loss.", dir=path.parent) as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), 0o666 & ~umask())
                os.link(stream.name, path)
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink()
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

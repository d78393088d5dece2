"""Fold the class weights out of a trained model, so that its sigmoids are probabilities.

Weights a of the positives and b of the negatives shift a channel's scores, at the loss's optimum,
by log(a / b). This subtracts it from the bias of the layer that makes the scores, and writes a
model and a prototxt to deploy, with Sigmoid in place of the loss. Both nets are run, and compared.
"""

import math
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
    included,
    messages,
    one_line,
    parse,
    parse_binary,
    readable,
    title,
    title_and_type,
)

# The layers whose bias is added to their output, a value a channel, and their parameters.
MAKERS = {
    "InnerProduct": "inner_product_param",
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
}

# The layers that only move values; which channel of the loss is which output, running them says.
MOVERS = ("Slice", "Concat", "Reshape", "Flatten", "Crop", "Split", "Dropout")

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


def read_model(data):
    """The model as a message."""
    if data.startswith(b"\x89HDF"):
        raise Refused("an HDF5 model: save it with snapshot_format: BINARYPROTO")
    model = parse_binary(data)
    if model.layers:
        raise Refused(
            "it has layers in Caffe's old format: upgrade it first with Caffe's tool "
            "upgrade_net_proto_binary"
        )
    return model


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
    before = as_text(deploy), model.SerializeToString()
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
    after = as_text(deploy), model.SerializeToString()
    check_scores(net, weights, before, after)
    return Calibrated(*after, folds, notes)


def as_text(net):
    from google.protobuf import text_format

    return text_format.MessageToString(net, as_utf8=True)


# Finding the layers


def find_losses(net, chosen):
    """The indices of the losses of this type in training, or of the one with the chosen name."""
    train = messages().TRAIN
    losses = [
        i
        for i, layer in enumerate(net.layer)
        if layer.type == NATIVE
        and included(layer, train)
        and chosen in (None, readable(layer.name))
    ]
    if not losses:
        which = f" with the name '{chosen}'" if chosen else ""
        python = any(layer.type == "Python" for layer in net.layer)
        raise Refused(
            f"no layer {NATIVE}{which} is in the net in training"
            + ("; the command migrate makes the article's Python layer one" if python else "")
        )
    for i in losses:
        check_loss(net.layer[i])
    return losses


def check_loss(layer):
    """Refuse a loss whose weights shift the scores by no constant."""
    own = getattr(layer, PARAMETER)
    if len(layer.bottom) < 2:
        raise Refused(f"{title(layer)} has no two bottoms, scores and targets")
    if own.class_balance != own.NONE:
        raise Refused(
            f"{title(layer)} has class_balance, whose weights are another in each batch: there is "
            "no constant shift to fold out"
        )
    for name in ("cls_weight", "neg_weight"):
        for c, weight in enumerate(getattr(own, name)):
            if not 0 < weight < math.inf:
                raise Refused(
                    f"{title(layer)}: {name} {weight:g} (value {c}, from 0): the shift log(a / b) "
                    "is finite only for finite weights above 0"
                )


def find_path(net, loss):
    """The layers that make the loss's scores or move them, by index: the same in TRAIN and TEST."""
    pb = messages()
    (path, unmade), test = (path_in(net, loss, phase) for phase in (pb.TRAIN, pb.TEST))
    if (path, unmade) != test:
        others = [title_and_type(net.layer[i]) for i in sorted(set(path) ^ set(test[0]))]
        raise Refused(
            f"the scores of {title(net.layer[loss])} are made by the same layers in TRAIN and "
            f"TEST, or cannot be calibrated; not in both: {', '.join(others) or 'none'}"
        )
    if unmade:
        raise Refused(
            f"no layer makes '{readable(unmade[0])}', the scores of {title(net.layer[loss])}"
        )
    for layer in (net.layer[i] for i in path):
        if layer.type not in MAKERS and layer.type not in MOVERS:
            raise Refused(
                f"{title_and_type(layer)} makes the scores of {title(net.layer[loss])}, and has no "
                f"bias to fold the weights into: they must come from {', '.join(MAKERS)}, directly "
                f"or through {', '.join(MOVERS)}"
            )
        if layer.type in MAKERS and len(layer.top) != 1:
            raise Refused(f"{title(layer)} has {len(layer.top)} tops, which share its bias")
    return path


def path_in(net, loss, phase):
    """Of a net in this phase; and the blobs that no layer makes."""
    path, wanted = [], [net.layer[loss].bottom[0]]
    for i in reversed(range(loss)):
        layer = net.layer[i]
        if included(layer, phase) and set(layer.top) & set(wanted):
            path.insert(0, i)
            wanted = [blob for blob in wanted if blob not in layer.top] + moved(layer)
    return path, wanted


def moved(layer):
    """The bottoms whose values are in its tops, as they are; the second of Crop is but a shape."""
    if layer.type not in MOVERS:
        return []
    return list(layer.bottom[:1] if layer.type == "Crop" else layer.bottom)


def readers(net, indices, makers):
    """Those of these layers, in the net's order, that compute from the scores of the makers."""
    scores, found = set(), []
    for i in indices:
        layer = net.layer[i]
        if scores & set(moved(layer)):
            scores.update(layer.top)
        elif scores & set(layer.bottom) and layer.type != "Crop":
            found.append(i)
        if i in makers:
            scores.update(layer.top)
    return found


def refuse_readers(net, kept, maker):
    """Refuse layers to deploy that compute from the scores: they were trained on other ones."""
    for i in readers(net, kept, [maker]):
        raise Refused(
            f"{title_and_type(net.layer[i])} takes the scores of {title(net.layer[maker])} too, "
            "and would get others than it was trained with"
        )


def training_notes(net, loss, losses, path):
    """Notes on what else moves the scores in training; a loss that is left out is refused."""
    train = [i for i, layer in enumerate(net.layer) if included(layer, messages().TRAIN)]
    notes = []
    if len(net.layer[loss].bottom) > 2:
        notes.append(
            f"{title(net.layer[loss])} has element weights (a third bottom): this is exact only if "
            "they do not depend on the targets"
        )
    notes += [
        f"{title(net.layer[i])} drops scores in training, and scales the others: this is not exact"
        for i in path
        if net.layer[i].type == "Dropout"
    ]
    for i in readers(net, train, path):
        layer = net.layer[i]
        if layer.type == NATIVE and i not in losses:
            raise Refused(
                f"{title(layer)} and {title(net.layer[loss])} are on scores of the same layer: "
                "calibrate both at once, without --layer"
            )
        if layer.type not in (NATIVE, "Silence", "Accuracy"):
            notes.append(
                f"{title_and_type(layer)} takes scores of the same layer in training, too: this is "
                "exact only if it does not train these"
            )
    return notes


def refuse_shared_bias(net, maker):
    names = [param.name for param in net.layer[maker].param[1:] if param.name]
    for i, layer in enumerate(net.layer):
        if i != maker and any(param.name in names for param in layer.param):
            raise Refused(
                f"{title(net.layer[maker])} shares its bias with {title(layer)} (param name "
                f"'{readable(names[0])}'): there is no bias of its own to fold the weights into"
            )


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


# The model


def check_fits(layer, model):
    """Refuse a model that has another layer under this name, or not the blobs that it needs."""
    found = [one for one in model.layer if one.name == readable(layer.name)]
    if layer.type in MAKERS and len(found) != 1:
        raise Refused(f"the model does not fit the net: it has {len(found)} of {title(layer)}")
    if found and found[0].type != layer.type:
        raise Refused(
            f"the model does not fit the net: {title(layer)} is of type {found[0].type} there, and "
            f"{readable(layer.type)} in the prototxt"
        )
    if layer.type not in MAKERS:
        return
    outputs, bias_term = parameter(layer).num_output, parameter(layer).bias_term
    blobs = found[0].blobs
    shapes = [dims(blob) for blob in blobs]
    fits = (
        len(blobs) == 1 + bias_term
        and all(len(values(blob)) == math.prod(shape) for blob, shape in zip(blobs, shapes))
        and outputs_of(layer, shapes[0]) == outputs
        and (not bias_term or math.prod(shapes[1]) == outputs)
    )
    if not fits:
        raise Refused(
            f"the model does not fit the net: {title(layer)} has blobs of shape "
            f"{', '.join(map(str, shapes)) or 'none'} there, and the prototxt says num_output: "
            f"{outputs}, bias_term: {str(bias_term).lower()}"
        )


def recorded_losses(loss, model):
    """A model has the layers of its training net, this loss among them."""
    return [one for one in model.layer if (one.name, one.type) == (readable(loss.name), NATIVE)]


def check_record(loss, model):
    """Refuse a model that was trained with other weights, or that is calibrated already."""
    recorded = recorded_losses(loss, model)
    for name in ("cls_weight", "neg_weight"):
        # No weight is 1.
        now, *then = (
            list(getattr(getattr(one, PARAMETER), name)) or [1.0] for one in [loss, *recorded]
        )
        if any(one != now for one in then):
            raise Refused(
                f"the model does not fit the net: it was trained with another {name} in "
                f"{title(loss)} than the prototxt has"
            )
    scores = readable(loss.bottom[0])
    if not recorded and any(
        one.type == "Sigmoid" and list(one.bottom) == [scores] for one in model.layer
    ):
        raise Refused(
            f"the model has a Sigmoid in place of {title(loss)}: it is calibrated already"
        )


def record_sigmoid(loss, model):
    """Have the model say that it is calibrated, so that nobody does so twice."""
    for one in recorded_losses(loss, model):
        name, top = one.name, one.top[0]
        one.Clear()
        one.name, one.type = name, "Sigmoid"
        one.bottom.append(readable(loss.bottom[0]))
        one.top.append(top)


def parameter(layer):
    return getattr(layer, MAKERS[layer.type])


def dims(blob):
    """The shape, of the old four numbers where there is no other."""
    if blob.HasField("shape"):
        return list(blob.shape.dim)
    return [blob.num, blob.channels, blob.height, blob.width]


def values(blob):
    return blob.double_data or blob.data


def outputs_of(layer, shape):
    """num_output by the shape of the weights; None if it has too few axes."""
    if layer.type == "InnerProduct":
        axis = -1 if layer.inner_product_param.transpose else -2
        return shape[axis] if len(shape) >= 2 else None
    if len(shape) < 3:
        return None
    if layer.type == "Deconvolution":
        return shape[1] * layer.convolution_param.group
    return shape[0]


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


def bias_in(maker, model):
    """The values of its bias, which it gets in the model if it has none."""
    (trained,) = (one for one in model.layer if one.name == readable(maker.name))
    if len(trained.blobs) == 1:
        outputs = parameter(maker).num_output
        parameter(trained).bias_term = True
        added = trained.blobs.add()
        added.shape.dim.append(outputs)
        # In the same type as the layer's weights.
        stored = added.double_data if trained.blobs[0].double_data else added.data
        stored.extend([0.0] * outputs)
    return values(trained.blobs[1])


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

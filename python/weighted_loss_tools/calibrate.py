"""Fold the class weights out of a trained model, so that its sigmoids are probabilities.

Weights a of the positives and b of the negatives shift a channel's scores, at the loss's optimum,
by log(a / b). This subtracts it from the bias of the layer that makes the scores, and writes a
model and a prototxt to deploy, with Sigmoid in place of the loss. The net is not run.
"""

import math
import os
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss.errors import Failure, Refused

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

# loss, maker: layers. weights: cls_weight and neg_weight a channel. before, after: the biases.
Fold = namedtuple("Fold", "loss maker weights before after")
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
    makers = {i: find_maker(net, i) for i in losses}
    notes = [note for i in losses for note in training_notes(net, i, makers[i])]
    deploy, kept = deploy_net(net, losses, shapes or {})
    for i in kept:
        check_fits(net.layer[i], model)
    folds = []
    for i, maker in makers.items():
        refuse_readers(net, kept, maker)
        refuse_shared_bias(net, maker)
        folds.append(fold(net.layer[i], net.layer[maker], model))
        check_record(net.layer[i], net.layer[maker], model)
        record_sigmoid(net.layer[i], net.layer[maker], model)
        set_bias_term(deploy, net.layer[maker])
    from google.protobuf import text_format

    text = text_format.MessageToString(deploy, as_utf8=True)
    return Calibrated(text, model.SerializeToString(), folds, notes)


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


def find_maker(net, loss):
    """The index of the layer that makes the loss's scores, the same in TRAIN and in TEST."""
    pb = messages()
    train, test = (maker_in(net, loss, phase) for phase in (pb.TRAIN, pb.TEST))
    if train is None or train != test:
        others = [title_and_type(net.layer[i]) for i in (train, test) if i is not None]
        raise Refused(
            f"the scores of {title(net.layer[loss])} are made by one layer in TRAIN and TEST, or "
            f"cannot be calibrated; here it is {' and '.join(others) or 'none'}"
        )
    layer = net.layer[train]
    if layer.type not in MAKERS:
        raise Refused(
            f"{title_and_type(layer)} makes the scores of {title(net.layer[loss])}, and has no "
            f"bias to fold the weights into: they must come from {', '.join(MAKERS)} directly"
        )
    if len(layer.top) != 1:
        raise Refused(f"{title(layer)} has {len(layer.top)} tops, which share its bias")
    return train


def maker_in(net, loss, phase):
    """Of a net in this phase; through Split, which copies."""
    blob = net.layer[loss].bottom[0]
    for i in reversed(range(loss)):
        layer = net.layer[i]
        if included(layer, phase) and blob in layer.top:
            if layer.type != "Split":
                return i
            blob = layer.bottom[0]
    return None


def readers(net, indices, maker):
    """Those of these layers, in the net's order, that read the maker's scores; through Split."""
    scores, found = {net.layer[maker].top[0]}, []
    for i in indices:
        layer = net.layer[i]
        if i <= maker or not scores & set(layer.bottom):
            continue
        if layer.type == "Split":
            scores.update(layer.top)
        else:
            found.append(i)
    return found


def refuse_readers(net, kept, maker):
    """Refuse layers to deploy that compute from the scores: they were trained on other ones."""
    for i in readers(net, kept, maker):
        raise Refused(
            f"{title_and_type(net.layer[i])} takes the scores of {title(net.layer[maker])} too, "
            "and would get others than it was trained with"
        )


def training_notes(net, loss, maker):
    """Notes on what else moves the scores in training; another loss of this type is refused."""
    train = [i for i, layer in enumerate(net.layer) if included(layer, messages().TRAIN)]
    notes = []
    if len(net.layer[loss].bottom) > 2:
        notes.append(
            f"{title(net.layer[loss])} has element weights (a third bottom): this is exact only if "
            "they do not depend on the targets"
        )
    for i in readers(net, train, maker):
        layer = net.layer[i]
        if i != loss and layer.type == NATIVE:
            raise Refused(
                f"{title(layer)} and {title(net.layer[loss])} are on the same scores, which their "
                "weights shift together: put the sum of the weights into one of them"
            )
        if i != loss and layer.type not in ("Silence", "Accuracy"):
            notes.append(
                f"{title_and_type(layer)} takes the scores in training, too: this is exact only if "
                "it does not train them"
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


def check_record(loss, maker, model):
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
    scores = readable(maker.top[0])
    if not recorded and any(
        one.type == "Sigmoid" and list(one.bottom) == [scores] for one in model.layer
    ):
        raise Refused(
            f"the model has a Sigmoid in place of {title(loss)}: it is calibrated already"
        )


def record_sigmoid(loss, maker, model):
    """Have the model say that it is calibrated, so that nobody does so twice."""
    for one in recorded_losses(loss, model):
        name, top = one.name, one.top[0]
        one.Clear()
        one.name, one.type = name, "Sigmoid"
        one.bottom.append(readable(maker.top[0]))
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


def fold(loss, maker, model):
    """Subtract log(a / b) from the bias of the maker in the model, which gets one if need be."""
    (trained,) = (one for one in model.layer if one.name == readable(maker.name))
    outputs = parameter(maker).num_output
    weights = channel_weights(loss, maker, dims(trained.blobs[0]))
    shift = np.log(weights[0]) - np.log(weights[1])
    if not parameter(maker).bias_term:
        parameter(trained).bias_term = True
        added = trained.blobs.add()
        added.shape.dim.append(outputs)
        # In the same type as the layer's weights.
        stored = added.double_data if trained.blobs[0].double_data else added.data
        stored.extend([0.0] * outputs)
    bias = values(trained.blobs[1])
    before = np.array(bias, np.float64)
    if not np.all(np.isfinite(before)):
        raise Refused(f"{title(maker)} has a bias in the model that is not finite: it diverged")
    bias[:] = (before - shift).tolist()
    return Fold(loss, maker, weights, before, np.array(bias, np.float64))


def channel_weights(loss, maker, weight_shape):
    """(cls_weight, neg_weight) as arrays of a value for each output of the maker."""
    own = getattr(loss, PARAMETER)
    outputs = parameter(maker).num_output
    given = {name: list(getattr(own, name)) for name in ("cls_weight", "neg_weight")}
    for name, one in given.items():
        if len(one) not in (0, 1, outputs):
            raise Refused(
                f"{title(loss)}: {name} has {len(one)} values, and {title(maker)} makes {outputs} "
                "channels"
            )
    if max(map(len, given.values())) > 1 and own.axis not in channel_axes(maker, weight_shape):
        raise Refused(
            f"{title(loss)} has weights along axis {own.axis}, which is not the one that "
            f"{title_and_type(maker)} has a bias along"
        )
    return [np.full(outputs, one or 1.0, np.float64) for one in given.values()]


def channel_axes(maker, weight_shape):
    """What the loss's axis may be to mean the axis of the maker's outputs."""
    spatial = 0 if maker.type == "InnerProduct" else len(weight_shape) - 2
    return parameter(maker).axis, -1 - spatial


def set_bias_term(deploy, maker):
    for layer in deploy.layer:
        if layer.name == maker.name and layer.type == maker.type and not parameter(layer).bias_term:
            parameter(layer).bias_term = True


# What the command leaves


def table(one):
    """A line a channel."""
    lines = [
        f"{title(one.loss)}: log(a / b) folded out of the bias of {title_and_type(one.maker)}",
        "channel" + "".join(f"{c:>13}" for c in ("a", "b", "log(a / b)", "bias", "new bias")),
    ]
    columns = zip(*one.weights, np.log(one.weights[0] / one.weights[1]), one.before, one.after)
    for c, row in enumerate(columns):
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

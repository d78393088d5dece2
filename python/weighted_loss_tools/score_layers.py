"""The layers that make a loss's scores, and those that take them."""

import math

from weighted_sigmoid_loss.errors import Refused

from .prototxt import NATIVE, PARAMETER, included, messages, readable, title, title_and_type

# The layers whose bias is added to their output, a value per channel, and their parameters.
MAKERS = {
    "InnerProduct": "inner_product_param",
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
}

# The layers that only move values; which channel of the loss is which output, running them says.
MOVERS = ("Slice", "Concat", "Reshape", "Flatten", "Crop", "Split", "Dropout")


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


def parameter(layer):
    return getattr(layer, MAKERS[layer.type])

"""The net to deploy: that which was trained, with inputs for its data and Sigmoid for its loss."""

from weighted_sigmoid_loss.errors import Refused

from .prototxt import included, messages, readable

# Layers without bottoms that are part of the net; any other is a source of data.
CONSTANTS = ("Parameter", "DummyData")


def deploy_net(net, losses, shapes):
    """Return the net in the TEST phase, of the layers that the scores depend on alone.

    losses: the indices of the losses in net.layer, each replaced by Sigmoid. shapes: {blob: dims}
    of inputs, where the net itself does not say. Also returns the indices of the layers kept.
    """
    kept, inputs = dependencies(net, losses)
    unknown = sorted(set(shapes) - set(map(readable, inputs)))
    if unknown:
        names = ", ".join(map(readable, inputs)) or "none"
        raise Refused(f"--shape {unknown[0]}: no such input of the net to deploy ({names})")
    parts = [net.layer[i] for i in kept if i not in losses]
    used = {layer.name for layer in parts} | {top for layer in parts for top in layer.top}
    deploy = messages().NetParameter(name=net.name)
    for blob in inputs:
        layer = deploy.layer.add(name=free(blob, used), type="Input", top=[blob])
        layer.input_param.shape.add(dim=shapes.get(readable(blob)) or known_shape(net, blob))
    for i in kept:
        if i in losses:
            scores = net.layer[i].bottom[0]
            name = free("prob" if len(losses) == 1 else f"{net.layer[i].name}_prob", used)
            deploy.layer.add(name=name, type="Sigmoid", bottom=[scores], top=[name])
        else:
            layer = deploy.layer.add()
            layer.CopyFrom(net.layer[i])
            layer.ClearField("include")
            layer.ClearField("exclude")
    return deploy, [i for i in kept if i not in losses]


def free(name, used):
    """The name, or one like it that is not used; it is now."""
    while name in used:
        name += "_"
    used.add(name)
    return name


def dependencies(net, losses):
    """The layers of the TEST phase that the losses' scores need, and the blobs that none makes."""
    test = messages().TEST
    kept, wanted = [], []
    for i in reversed(range(len(net.layer))):
        layer = net.layer[i]
        if i in losses:
            kept.insert(0, i)
            wanted.append(layer.bottom[0])
        elif is_part(layer, test) and set(layer.top) & set(wanted):
            kept.insert(0, i)
            wanted = [blob for blob in wanted if blob not in layer.top] + list(layer.bottom)
    inputs = list(dict.fromkeys(reversed(wanted)))
    return kept, inputs


def is_part(layer, phase):
    return included(layer, phase) and (bool(layer.bottom) or layer.type in CONSTANTS)


def known_shape(net, blob):
    """What an Input layer of any phase and stage, or the net's own inputs, say of a blob."""
    for layer in net.layer:
        if layer.type == "Input" and blob in layer.top and layer.input_param.shape:
            own = list(layer.top).index(blob) if len(layer.input_param.shape) > 1 else 0
            return layer.input_param.shape[own].dim
    if blob in net.input:
        own = list(net.input).index(blob)
        if own < len(net.input_shape):
            return net.input_shape[own].dim
        if 4 * own < len(net.input_dim):
            return net.input_dim[4 * own : 4 * own + 4]
    raise Refused(
        f"the shape of the input '{readable(blob)}' is its data layer's, which is not read: give "
        f"it, as --shape {readable(blob)}=1,3,224,224"
    )

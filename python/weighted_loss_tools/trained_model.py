"""A trained model: the blobs and the record of the net that calibrate reads and changes."""

import math

from weighted_sigmoid_loss.errors import Refused

from .prototxt import NATIVE, PARAMETER, parse_binary, readable, title
from .score_layers import MAKERS, parameter


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
    for layer in model.layer:
        for name in (layer.name, layer.type, *layer.bottom, *layer.top):
            if not isinstance(name, str):  # protobuf then gives bytes
                raise Refused(f"it has a name that is not UTF-8, or is damaged: {name}")
    return model


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

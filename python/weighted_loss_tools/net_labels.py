"""Where a net's data layer has its labels from."""

from pathlib import Path

from weighted_sigmoid_loss.errors import Refused

from .files import read_text
from .labels import Source
from .prototxt import caffe_messages, included, parse, readable, title, title_and_type


def net_source(path, top, name):
    """The Source of the data layer, of this name or the only one, that makes the top."""
    pb = caffe_messages()
    try:
        net = parse(read_text(path), pb)
        layer = data_layer(net, pb, top, name)
        if layer.type not in SOURCES:
            raise Refused(
                f"{title_and_type(layer)} makes '{top}': labels are read from the sources of "
                f"{', '.join(SOURCES)}: give the labels themselves, without --net"
            )
        return SOURCES[layer.type](layer, tops(layer).index(top), top)
    except Refused as error:
        raise Refused(f"{path}: {error}") from None


def data_layer(net, pb, top, name):
    """The one layer without bottoms that makes the top in training."""
    made = [
        layer
        for layer in net.layer
        if not layer.bottom
        and top in tops(layer)
        and name in (None, readable(layer.name))
        and included(layer, pb.TRAIN)
    ]
    if len(made) != 1:
        names = ", ".join(readable(layer.name) for layer in made) or "none"
        raise Refused(
            f"{len(made)} data layers have the top '{top}' in training ({names}): choose one with "
            "--top and --layer"
        )
    return made[0]


def tops(layer):
    return [readable(top) for top in layer.top]


def from_hdf5(layer, index, top):
    return Source(Path(readable(layer.hdf5_data_param.source)), dataset=top)


def from_lmdb(layer, index, top):
    path = Path(readable(layer.data_param.source))
    if index == 1:
        return Source(path, field="label")
    return Source(path, field="data", scale=scale_of(layer))


def from_images(layer, index, top):
    """What ImageData reads in color has three channels, however gray it is."""
    of_layer = layer.image_data_param
    source = Source(Path(readable(of_layer.source)), root=readable(of_layer.root_folder))
    if index == 1:
        return source._replace(field="label")
    if of_layer.is_color:
        raise Refused(f"{title(layer)} reads its masks in color: add is_color: false to it")
    notes = ()
    if of_layer.new_height:
        notes = (f"{title(layer)} resizes its images: counted are the pixels of the files",)
    return source._replace(field="data", scale=scale_of(layer), notes=notes)


def scale_of(layer):
    """What the layer multiplies its values by, if it does nothing else to them."""
    transform = layer.transform_param
    if transform.mean_file or any(transform.mean_value):
        raise Refused(f"{title(layer)} subtracts a mean from the labels: give their source itself")
    return transform.scale


SOURCES = {"Data": from_lmdb, "HDF5Data": from_hdf5, "ImageData": from_images}

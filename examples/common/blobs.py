"""What goes into Caffe and comes out: HDF5 files to train on, scores of a trained net."""

import os

import h5py
import numpy as np


def write_hdf5(folder, name, blobs):
    """Write {blob: array} to NAME.h5, and the list NAME.txt that HDF5Data's `source` names.

    The list holds a path relative to folder's parent, where `caffe train` runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.h5.partial"
    with h5py.File(partial, "w") as file:
        for blob, array in blobs.items():
            file[blob] = array
    os.replace(partial, folder / f"{name}.h5")
    (folder / f"{name}.txt").write_text(f"{folder.name}/{name}.h5\n")


def score_batches(caffe, folder, batches, output="score"):
    """An output, in float64, that the model in folder gives for each batch of images."""
    files = str(folder / "net.prototxt"), str(folder / "model.caffemodel")
    net = caffe.Net(files[0], caffe.TEST, stages=["deploy"], weights=files[1])
    for batch in batches:
        net.blobs["image"].reshape(*batch.shape)
        net.blobs["image"].data[...] = batch
        yield net.forward()[output].astype(np.float64)

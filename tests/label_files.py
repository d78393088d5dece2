"""Files of labels, as users have them, for the tests of class-weights."""

import h5py
import lmdb
import numpy as np
from caffe.proto import caffe_pb2

# 8 instances of 3 channels: 4, 2 and 1 positives.
TARGETS = np.array([[1, 0, 0]] * 3 + [[1, 1, 0]] + [[0, 1, 0]] + [[0, 0, 1]] + [[0, 0, 0]] * 2)
POSITIVES = [4, 2, 1]


def write_lmdb(path, datums):
    """An LMDB as Caffe's own programs write it: keys in order."""
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as txn:
        for i, datum in enumerate(datums):
            txn.put(f"{i:08}".encode(), datum.SerializeToString())
    return path


def float_datum(values):
    values = np.asarray(values)
    channels, height, width = (*values.shape, 1, 1)[:3]
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    datum.float_data.extend(values.ravel().tolist())
    return datum


def byte_datum(values):
    datum = float_datum(values)
    datum.data = np.asarray(values, np.uint8).tobytes()
    datum.ClearField("float_data")
    return datum


def write_hdf5_list(folder, arrays, dataset="label"):
    names = []
    for i, array in enumerate(arrays):
        names.append(str(folder / f"{i}.h5"))
        with h5py.File(names[-1], "w") as file:
            file[dataset] = array
    source = folder / "train.txt"
    source.write_text("\n".join(names) + "\n")
    return source


def write_npy(path, array):
    np.save(path, array)
    return path


def column(report, name):
    return [channel[name] for channel in report["channels"]]

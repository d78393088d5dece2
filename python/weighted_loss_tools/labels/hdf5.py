"""Labels in HDF5 files, as HDF5Data reads them."""

from contextlib import contextmanager

from weighted_sigmoid_loss.errors import Refused

from .common import Labels, check_array, dimensions, needed, refusing, rows_a_piece

MAGIC = b"\x89HDF\r\n\x1a\n"
SPARSEST = 1 << 20  # labels a stored byte: where there are more, they were never written


def hdf5(path, source):
    yield from files([path], path, source)


def files(paths, listed_in, source):
    """The dataset of each, one after the other."""
    h5py = needed("h5py", "python3-h5py")
    name = source.dataset or "label"
    shapes = [shape_of(h5py, path, name) for path in paths]
    for path, shape in zip(paths, shapes):
        if shape[1:] != shapes[0][1:]:
            raise Refused(
                f"{path}: dataset '{name}' is {dimensions(shape)}, and {dimensions(shapes[0])} "
                f"in {paths[0]}: all but the first axis must be equal"
            )
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    words = f"{dimensions(shape)} in {listed_in}, dataset '{name}'"
    yield Labels(words, shape[0], False, [])
    for path in paths:
        with opened(h5py, path, name) as dataset:
            step = rows_a_piece(dataset.shape)
            for start in range(0, dataset.shape[0], step):
                yield dataset[start : start + step]


@contextmanager
def opened(h5py, path, name):
    with refusing(f"{path}: not a whole HDF5 file"), h5py.File(path, "r") as file:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            names = ", ".join(sorted(file)[:10]) or "none"
            raise Refused(f"{path}: no dataset '{name}' (it has: {names}): name it, --dataset")
        yield found


def shape_of(h5py, path, name):
    with opened(h5py, path, name) as dataset:
        where = f"{path}: dataset '{name}'"
        check_array(where, dataset.shape, dataset.dtype)
        check_array(where, (1, *(dataset.chunks or ())), dataset.dtype)
        if dataset.size > SPARSEST * dataset.id.get_storage_size() and not dataset.is_virtual:
            raise Refused(
                f"{where} is {dimensions(dataset.shape)}, and next to nothing was written to it"
            )
        return dataset.shape

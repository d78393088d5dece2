"""What CMake is told for a build of Caffe that is there for its tests alone."""

from _common import ROOT, Failure
from build import SOURCE

UNUSED = ["BUILD_python", "USE_OPENCV", "USE_LEVELDB", "USE_LMDB"]


def only_tests(upstream=None):
    """Options for our C++ tests, those of upstream's whose files match a pattern, and what these
    use of libcaffe."""
    tests = set((ROOT / "src" / "caffe" / "test").glob("test_*.cpp"))
    if upstream:
        theirs = set((SOURCE / "src" / "caffe" / "test").glob(f"test_{upstream}.cpp"))
        if not theirs:
            raise Failure(f"{SOURCE} has no tests {upstream}; run scripts/fetch.py")
        tests |= theirs
    names = sorted({path.stem[len("test_") :] for path in tests})
    return [f"-DBUILD_only_tests={','.join(names)}", *(f"-D{name}=OFF" for name in UNUSED)]

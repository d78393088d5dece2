"""The kernel's C++ tests, which need no Caffe, but the GoogleTest that it brings."""

from _common import ROOT, Failure, run

GTEST = ROOT / "build" / "source" / "caffe" / "src"


def compile_tests(compiler, options, names, kernel, tests):
    """Compile the program TESTS: tests by these names, and the kernel's sources or objects."""
    sources = [
        ROOT / "src" / "caffe" / "test" / f"test_weighted_sigmoid_loss{n}.cpp" for n in names
    ]
    gtest = [GTEST / "gtest" / "gtest-all.cpp", GTEST / "gtest" / "gtest_main.cc"]
    if not gtest[0].exists():
        raise Failure("Caffe's source is not here; run scripts/fetch.py")
    # -w: GoogleTest is not ours, and its macros warn in our tests.
    fixed = ["-std=c++11", "-w", f"-I{ROOT / 'include'}", f"-I{GTEST}", "-pthread"]
    run([compiler, *fixed, *options, *sources, *gtest, *kernel, "-o", tests])

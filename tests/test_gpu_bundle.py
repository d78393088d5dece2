"""What devtools/gpu_bundle.py collects."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from stand_in_program import shell

import _only_tests
import gpu_bundle
from _common import Failure
from _only_tests import only_tests

ROOT = Path(__file__).resolve().parent.parent


def test_libraries_that_are_carried(tmp_path, monkeypatch):
    def says(*lines):
        printed = "\n".join(f"\t{line}" for line in lines)
        shell(tmp_path / "ldd", f"cat <<END\n{printed}\nEND")

    lib = tmp_path / "lib"
    lib.mkdir()
    for name in ("libcaffe.so.1.0.0", "libcudart.so.13"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    says(
        "linux-vdso.so.1 (0x00007ffd)",
        f"libcaffe.so.1.0.0 => {tmp_path}/libcaffe.so.1.0.0 (0x00007f)",
        "libcublas.so.13 => not found",
        "libnccl.so.2 => /opt/libnccl.so.2 (0x00007f)",
        f"libcudart.so.13 => {tmp_path}/libcudart.so.13 (0x00007f)",
        "libm.so.6 => /lib/libm.so.6 (0x00007f)",
        "/lib64/ld-linux-x86-64.so.2 (0x00007f)",
    )
    gpu_bundle.collect_libraries([tmp_path / "caffe"], [], lib)
    assert sorted(path.name for path in lib.iterdir()) == ["libcaffe.so.1.0.0", "libcudart.so.13"]
    says("libhdf5.so.103 => not found")
    with pytest.raises(Failure, match=r"caffe needs libhdf5\.so\.103"):
        gpu_bundle.collect_libraries([tmp_path / "caffe"], [], lib)


@pytest.mark.parametrize("named", ["native", "80,90", "sm_90"])
def test_bundle_is_for_one_gpu(monkeypatch, named):
    monkeypatch.setenv("CUDA_ARCH", named)
    with pytest.raises(Failure, match=f"CUDA_ARCH is {named}, and a bundle is for one") as stop:
        gpu_bundle.check_architecture()
    assert stop.value.status == 2


def test_repository_is_carried_as_it_is(tmp_path, monkeypatch):
    gpu_bundle.add_repository(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "scripts" / "runtest.py").read_bytes() == (
        ROOT / "scripts" / "runtest.py"
    ).read_bytes()
    assert not (tmp_path / "bundle" / "build").exists()
    monkeypatch.setattr(gpu_bundle, "ARCHIVE", tmp_path / "gpu-bundle.tar.gz")
    assert gpu_bundle.write_archive(tmp_path / "bundle") == gpu_bundle.ARCHIVE.stat().st_size
    with tarfile.open(gpu_bundle.ARCHIVE) as archive:
        assert "gpu-bundle/Makefile" in archive.getnames()


def test_demo_is_trained_without_dropout_and_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'scripts'}:{ROOT}")
    program = ROOT / "tests" / "gpu" / "demo_net.py"
    subprocess.run([sys.executable, program, tmp_path / "demo"], check=True)
    net = (tmp_path / "demo" / "net.prototxt").read_text()
    assert "SigmoidCrossEntropyWeightLoss" in net and "Dropout" not in net
    solver = (tmp_path / "demo" / "solver.prototxt").read_text()
    fields = [line.split(":")[0] for line in solver.splitlines() if line[0] != "#"]
    assert len(fields) == len(set(fields))
    assert "test_iter" not in fields and "display: 1\n" in solver and 'type: "Adam"' in solver


def names_of(options):
    (names,) = [word.split("=")[1] for word in options if word.startswith("-DBUILD_only_tests=")]
    return set(names.split(","))


def test_bundle_for_a_gpu_has_our_tests_and_upstreams_of_losses(pristine):
    names = names_of(only_tests("*_loss*"))
    ours = {path.stem for path in (ROOT / "src" / "caffe" / "test").glob("test_*.cpp")}
    folder = pristine / "src" / "caffe" / "test"
    assert {f"test_{name}" for name in names} >= ours
    upstream = [name for name in names if (folder / f"test_{name}.cpp").exists()]
    assert sorted(upstream) == [
        "contrastive_loss_layer",
        "euclidean_loss_layer",
        "hinge_loss_layer",
        "infogain_loss_layer",
        "multinomial_logistic_loss_layer",
        "sigmoid_cross_entropy_loss_layer",
        "softmax_with_loss_layer",
    ]
    assert {f"test_{name}" for name in names_of(only_tests())} == ours


def test_bundle_without_upstreams_tests_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(_only_tests, "SOURCE", tmp_path)
    with pytest.raises(Failure, match=r"has no tests .*fetch\.py"):
        only_tests("*_loss*")

"""The demo end to end, with few iterations and one seed, on the built Caffe."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from stand_in_program import shell

DEMO = "examples.fashion_mnist"
RUNS = 3
ARGUMENTS = ["--seeds", "1", "--iterations", "30"]


@pytest.fixture(scope="module")
def finished(run_example, tmp_path_factory):
    """A finished demo's folder, not to be changed, and what it printed."""
    output = tmp_path_factory.mktemp("demo")
    done = run_example(DEMO, *ARGUMENTS, "--output", output)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "demo")


def models(output):
    """What tells whether a model was trained anew: its record's time of writing."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in output.glob("models/*/record.json")
    }


def trained(done):
    return [line for line in done.stderr.splitlines() if line.startswith("trained ")]


def test_reports(finished):
    output, done = finished
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert done.stdout.startswith((output / "report.txt").read_text(encoding="utf-8"))
    for name in ("report.png", "rare-class.png"):
        assert (output / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(trained(done)) == len(report["runs"]) == RUNS
    assert set(report["results"]) == {
        "unweighted",
        "unweighted_cut",
        "effective_number",
        "ratio",
    }
    assert set(report["calibration"]) == {
        "unweighted",
        "effective_number",
        "effective_number_calibrated",
        "ratio",
        "ratio_calibrated",
    }
    for run in report["runs"]:
        assert (output / run["model"]).is_file()
        assert run["train_loss"][-1][1] < run["train_loss"][0][1]


def test_figures_can_be_recomputed_from_the_models(run_example, finished):
    done = run_example(f"{DEMO}.evaluate", finished[0] / "report.json")
    assert done.returncode == 0, done.stderr
    assert "recomputed from 3 models; largest difference 0" in done.stdout


@pytest.mark.parametrize(
    ("part", "scheme", "figure"),
    [("results", "ratio", "f1"), ("calibration", "ratio_calibrated", "ece")],
)
def test_recomputing_finds_a_wrong_figure(run_example, copied, part, scheme, figure):
    path = copied / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    report[part][scheme]["seeds"]["1"]["mean"][figure] += 0.01
    path.write_text(json.dumps(report))
    done = run_example(f"{DEMO}.evaluate", path)
    assert done.returncode == 1
    assert "largest difference 0.01" in done.stdout


def test_second_run_trains_nothing_and_reports_the_same(run_example, copied):
    before, report = models(copied), (copied / "report.json").read_text(encoding="utf-8")
    done = run_example(DEMO, *ARGUMENTS, "--output", copied)
    assert done.returncode == 0, done.stderr
    assert not trained(done)
    assert models(copied) == before
    assert (copied / "report.json").read_text(encoding="utf-8") == report


def test_retrain_trains_all_to_the_same_models(run_example, copied):
    before = models(copied)
    old = json.loads((copied / "report.json").read_text(encoding="utf-8"))
    done = run_example(DEMO, *ARGUMENTS, "--output", copied, "--retrain")
    assert len(trained(done)) == RUNS
    assert all(models(copied)[name] > time_ for name, time_ in before.items())
    new = json.loads((copied / "report.json").read_text(encoding="utf-8"))
    assert new["results"] == old["results"]


def test_what_is_missing_or_damaged_is_trained_again(run_example, copied):
    (copied / "models" / "ratio-seed1" / "record.json").unlink()
    with open(copied / "models" / "unweighted-seed1" / "model.caffemodel", "r+b") as model:
        model.truncate(1000)
    done = run_example(DEMO, *ARGUMENTS, "--output", copied)
    assert done.returncode == 0, done.stderr
    assert len(trained(done)) == 2


def test_other_iterations_are_another_training(run_example, copied):
    done = run_example(DEMO, *ARGUMENTS[:-1], "20", "--output", copied)
    assert done.returncode == 0, done.stderr
    assert len(trained(done)) == RUNS


@pytest.mark.parametrize("to_group", [True, False], ids=["Ctrl-C", "demo killed"])
def test_interrupted_training_is_not_taken_for_finished(run_example, copied, to_group):
    process = run_example(
        DEMO,
        *[*ARGUMENTS[:-1], "5000", "--output", copied],
        start=subprocess.Popen,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's background job, as this may be itself, starts with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = copied / "models" / "effective_number-seed1" / "train.log"
    old = log.stat().st_mtime_ns
    while log.stat().st_mtime_ns == old or "Iteration 25 " not in log.read_text(encoding="utf-8"):
        assert process.poll() is None
        time.sleep(0.1)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    error = process.communicate(timeout=60)[1]
    if to_group:
        assert process.returncode == 130
        assert error.splitlines()[-1].startswith("fashion_mnist: interrupted")
        assert "Traceback" not in error
    assert "effective_number-seed1" not in models(copied)
    done = run_example(DEMO, *ARGUMENTS, "--output", copied)
    assert done.returncode == 0, done.stderr
    assert any("effective number" in line for line in trained(done))


def test_missing_data_names_the_package(run_example, tmp_path):
    output = ["--output", tmp_path / "out", "--data", tmp_path]
    done = run_example(DEMO, *ARGUMENTS, *output)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "dataset-fashion-mnist" in done.stderr


def test_missing_caffe_is_wrong_input(run_example, tmp_path):
    done = run_example(DEMO, "--output", tmp_path / "out", install=tmp_path)
    assert done.returncode == 2
    assert "make demo" in done.stderr and len(done.stderr.splitlines()) == 1


def test_failed_training_says_why(run_example, copied, caffe_install, tmp_path):
    """A Caffe whose program dies: its own fatal line is shown, and no model is left behind."""
    install = shutil.copytree(caffe_install, tmp_path / "install", symlinks=True)
    said = "F1227 09:00:00 1 a.cpp:1] Check failed: no"
    shell(install / "bin" / "caffe", f"echo '{said}' >&2\nexit 134")
    done = run_example(DEMO, *ARGUMENTS[:-1], "20", "--output", copied, install=install)
    assert done.returncode == 1
    assert "caffe train failed: Check failed: no" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_class_profile():
    from examples.fashion_mnist import longtail

    split = longtail.load_split(longtail.DATA_DIR, "test")
    # 6000 * 100^(-c/9), rounded down.
    assert split.counts == [6000, 3596, 2156, 1292, 774, 464, 278, 166, 100, 60]
    assert longtail.one_vs_rest(split.train.labels).sum(0).tolist() == split.counts
    assert len(split.test.labels) == 10000


def test_held_out_images_are_not_trained_on():
    from examples.fashion_mnist import longtail

    split = longtail.load_split(longtail.DATA_DIR, "held-out")
    assert split.counts[0] == 5000 and split.counts[-1] == 50
    assert (longtail.one_vs_rest(split.test.labels).sum(0) == 1000).all()
    everything = longtail.read_images(longtail.DATA_DIR, "train")
    copies = {image.tobytes() for image in split.train.images}
    shared = sum(image.tobytes() in copies for image in split.test.images)
    # The data set itself has a few identical images.
    distinct = len({image.tobytes() for image in everything.images})
    assert shared <= len(everything.labels) - distinct


def test_effective_number_weights():
    from examples.fashion_mnist import schemes

    # (1 - beta^n) / (1 - beta) is the geometric series 1 + beta + ... + beta^(n-1).
    series = {n: sum(0.999**k for k in range(n)) for n in (6000, 278, 60)}
    weights = schemes.effective_number([6000, 278, 60])
    assert weights == pytest.approx([series[6000] / series[n] for n in (6000, 278, 60)], rel=1e-12)
    assert weights[0] == 1


def test_ratio_weights():
    from examples.fashion_mnist import schemes

    assert schemes.negatives_to_positives([60, 30, 10]) == pytest.approx([40 / 60, 70 / 30, 9])


def test_prototxt_has_the_recommended_weights(pb):
    from examples.fashion_mnist import schemes
    from examples.fashion_mnist.longtail import profile
    from examples.fashion_mnist.training import read_prototxt

    net = read_prototxt("net.prototxt", pb.NetParameter())
    (loss,) = (layer for layer in net.layer if layer.type == "SigmoidCrossEntropyWeightLoss")
    weights = loss.sigmoid_cross_entropy_weight_loss_param.cls_weight
    expected = schemes.class_weights(schemes.DEFAULT, profile(6000))
    assert list(weights) == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def pb():
    from examples.common import CaffeInstall

    return CaffeInstall().pycaffe().proto.caffe_pb2


def test_cut_is_a_probability_of_1_over_1_plus_w():
    import numpy as np

    from examples.fashion_mnist.evaluate import figures

    # Probabilities 0.2, 0.3, 0.4, 0.6 and weight 3: the cut is at 0.25.
    probability = np.repeat([[0.2], [0.3], [0.4], [0.6]], 10, axis=1)
    targets = np.repeat([[0.0], [1.0], [0.0], [1.0]], 10, axis=1)
    result = figures(np.log(probability / (1 - probability)), targets, np.full(10, 3.0))
    assert result["mean"]["recall"] == 1
    assert result["mean"]["precision"] == pytest.approx(2 / 3)


def test_calibrated_nets_give_the_shifted_scores(finished, caffe_install):
    """Of the trained models, through calibrate and Caffe: sigmoid(score - log(w))."""
    import numpy as np

    from examples.common import CaffeInstall
    from examples.fashion_mnist import longtail
    from examples.fashion_mnist.schemes import class_weights
    from examples.fashion_mnist.scoring import calibrated, score
    from weighted_sigmoid_loss.reference import sigmoid

    caffe = CaffeInstall().pycaffe()
    split = longtail.load_split(longtail.DATA_DIR, "test")
    images = split.test.images[:500]
    for scheme in ("effective_number", "ratio"):
        folder = finished[0] / "models" / f"{scheme}-seed1"
        shift = np.log(class_weights(scheme, split.counts))
        expected = sigmoid(score(caffe, folder, images) - shift)
        np.testing.assert_allclose(calibrated(caffe, folder, images), expected, rtol=1e-5)


def test_calibration_figures():
    """ECE by hand, and scikit-learn's bins where every image weighs the same."""
    import numpy as np
    from sklearn.calibration import calibration_curve

    from examples.fashion_mnist import calibration

    # Bins 3 and 13 of 15: 0.25 against 1/4 of weight 4, 0.9 against 1 of weight 1.
    probability = np.array([0.25, 0.25, 0.9])
    targets, weights = np.array([1.0, 0, 1]), np.array([1.0, 3, 1])
    assert calibration.expected_error(probability, targets, weights) == pytest.approx(0.1 / 5)

    random = np.random.default_rng(1)
    probability = random.random(2000) ** 3
    targets = (random.random(2000) < probability).astype(float)
    weight, predicted, positive = calibration.reliability(probability, targets, np.ones(2000))
    share, mean = calibration_curve(targets, probability, n_bins=calibration.BINS)
    assert weight.sum() == 2000
    np.testing.assert_allclose(predicted[weight > 0], mean)
    np.testing.assert_allclose(positive[weight > 0], share)


def test_image_weights_give_the_shares_of_the_training():
    import numpy as np

    from examples.fashion_mnist import calibration, longtail

    for name in ("test", "held-out"):
        split = longtail.load_split(longtail.DATA_DIR, name)
        sums = np.bincount(split.test.labels, calibration.image_weights(split))
        np.testing.assert_allclose(sums, split.counts)

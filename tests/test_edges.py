"""The example on edges: its rule, its figures, and the whole of it with few iterations."""

import json

import numpy as np
import pytest

EDGES = "examples.edges"
NETS = 2
ARGUMENTS = ["--seeds", "1", "--iterations", "26"]


@pytest.fixture(scope="module")
def finished(run_example, tmp_path_factory):
    output = tmp_path_factory.mktemp("edges")
    done = run_example(EDGES, *ARGUMENTS, "--output", output)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture
def pb():
    from examples.common import CaffeInstall

    return CaffeInstall().pycaffe().proto.caffe_pb2


def trained(done):
    return [line for line in done.stderr.splitlines() if line.startswith("trained ")]


def test_reports(finished):
    output, done = finished
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert done.stdout.startswith((output / "report.txt").read_text(encoding="utf-8"))
    assert (output / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(trained(done)) == len(report["runs"]) == NETS
    assert set(report["results"]) == {"unbalanced", "balanced"}
    for run in report["runs"]:
        assert run["train_loss"][-1][1] < run["train_loss"][0][1]


def test_second_run_trains_nothing_and_reports_the_same(run_example, finished):
    output, _ = finished
    before = (output / "report.json").read_text(encoding="utf-8")
    done = run_example(EDGES, *ARGUMENTS, "--output", output)
    assert done.returncode == 0, done.stderr
    assert not trained(done)
    assert (output / "report.json").read_text(encoding="utf-8") == before


def test_missing_caffe_is_wrong_input(run_example, tmp_path):
    done = run_example(EDGES, "--output", tmp_path / "out", install=tmp_path)
    assert done.returncode == 2
    assert "make edges" in done.stderr and len(done.stderr.splitlines()) == 1


def test_missing_photograph_names_the_package(monkeypatch, tmp_path):
    from _common import Failure
    from examples.edges import pictures

    monkeypatch.setattr(pictures, "get_data_path", lambda: tmp_path)
    with pytest.raises(Failure, match="python-matplotlib-data"):
        pictures.path_of("grace_hopper.jpg")


def test_nets_differ_in_class_balance_alone(pb):
    from examples.edges import networks
    from examples.trainer import Run

    texts = [networks.net_prototxt(pb, Run(scheme, 1)) for scheme in networks.TITLES]
    unbalanced, balanced = ({*text.splitlines()} for text in texts)
    assert not unbalanced - balanced
    assert {line.strip() for line in balanced - unbalanced} == {"class_balance: INSTANCE"}


@pytest.fixture(scope="module")
def split():
    from examples.edges import pictures

    return pictures.split()


def test_split_is_by_picture(split):
    trained_on, held_out = ({picture.name for picture in part} for part in split)
    assert (len(trained_on), len(held_out)) == (10, 5)
    assert not trained_on & held_out


def test_edges_are_rare_in_every_photograph(split):
    for picture in split[0] + split[1]:
        assert 0 < (picture.target == 1).mean() < 0.11, picture.name
        assert set(np.unique(picture.target)) <= {0, 1, 2}


def test_target_of_steps():
    """A step of 0.5 is an edge, one of 0.12 is undecided, one of 0.02 is nothing."""
    from examples.edges import pictures

    levels = np.repeat([0, 0.5, 0.62, 0.64], 30)
    target = pictures.target_of(np.tile(levels, (40, 1)))
    middle = target[20]
    assert set(middle[25:35]) == {0, pictures.EDGE}
    assert set(middle[55:65]) == {0, pictures.UNDECIDED}
    assert not middle[85:95].any()


def test_crops_are_the_seeds(split, tmp_path, monkeypatch):
    import h5py

    from examples.edges import pictures

    monkeypatch.setattr(pictures, "CROPS", 4)
    for folder in ("a", "b"):
        pictures.write_crops(tmp_path / folder, split[0], [1, 2])

    def read(name):
        with h5py.File(tmp_path / name) as file:
            return np.concatenate([file["image"], file["target"]], axis=1)

    assert read("a/train-seed1.h5").shape == (4, 2, 96, 96)
    assert (read("a/train-seed1.h5") == read("b/train-seed1.h5")).all()
    assert (read("a/train-seed1.h5") != read("a/train-seed2.h5")).any()


def lines(*columns, value=8.0):
    """Scores of -8 with vertical lines of the given value."""
    scores = np.full((60, 80), -8.0)
    scores[:, list(columns)] = value
    return scores


def target_lines(edges, undecided=()):
    target = np.zeros((60, 80), int)
    target[:, list(edges)] = 1
    target[:, list(undecided)] = 2
    return target


@pytest.mark.parametrize("shift", [0, 3], ids=["bare", "with a constant added"])
def test_ridges_thin_a_blurred_line_to_its_middle(shift):
    from scipy.ndimage import gaussian_filter

    from examples.edges.boundaries import ridges

    blurred = gaussian_filter(lines(40), 3) + shift
    rows, columns = np.nonzero(ridges(blurred) >= shift - 6)
    assert set(columns) == {40} and len(rows) == 60


# The tolerance is 0.0075 * hypot(60, 80) = 0.75 pixels, so that only the same column matches.
def test_counts_of_lines():
    """Found: columns 20, 40, 60. True: 20 and 30; 60 is undecided, so that 40 alone is false."""
    from examples.edges.boundaries import HALF, at, count

    counts = count(lines(20, 40, 60), target_lines([20, 30], [60]))
    assert at(counts, HALF) == pytest.approx({"f": 0.5, "precision": 0.5, "recall": 0.5}, abs=0.02)


def test_an_edge_pixel_is_matched_once(monkeypatch):
    """Two lines beside one edge, both within the tolerance: half of what is found matches."""
    from examples.edges import boundaries

    monkeypatch.setattr(boundaries, "TOLERANCE", 0.05)
    counts = boundaries.count(lines(38, 42), target_lines([40]))
    found = boundaries.at(counts, boundaries.HALF)
    assert found["recall"] == pytest.approx(1, abs=0.02)
    assert found["precision"] == pytest.approx(0.5, abs=0.02)


def test_figures_of_two_pictures():
    """Two pictures whose best cuts differ: OIS takes both, ODS must choose one."""
    from examples.edges.boundaries import HALF, THRESHOLDS, Counts, figures

    true = np.full(len(THRESHOLDS), 100)
    low = np.arange(len(THRESHOLDS)) <= HALF
    high = np.arange(len(THRESHOLDS)) > HALF
    # One finds all 100 up to a half and nothing above; the other 300 up to a half, 100 above.
    first = Counts(true, 100 * low, 100 * low)
    second = Counts(true, 300 * low + 100 * high, 100 * low + 100 * high)
    result = figures([first, second])
    assert result["ois"] == {"f": 1.0, "precision": 1.0, "recall": 1.0}
    # Up to a half 2 * 200 / (200 + 400); above it 2 * 100 / (200 + 100).
    assert result["half"]["f"] == result["ods"]["f"] == pytest.approx(2 / 3)
    # Precision 1 up to recall 0.5 (51 of 101 steps), then 1/2.
    assert result["ap"] == pytest.approx((51 + 50 * 0.5) / 101)


def test_nothing_found():
    from examples.edges.boundaries import THRESHOLDS, Counts, figures

    zero = np.zeros(len(THRESHOLDS), int)
    result = figures([Counts(zero + 10, zero, zero)])
    assert result["ods"]["f"] == result["ois"]["f"] == 0
    # No recall but 0 is reached, and the precision there is 0.
    assert result["ap"] == 0

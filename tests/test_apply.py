"""scripts/apply.py on copies of a real tree: apply, update, check, remove, refuse, die, patch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import _applied_tree
import _caffe_proto
import _stand_in_trees
import _unified_diff
from _common import Failure

ROOT = Path(__file__).resolve().parent.parent

STATE = _applied_tree.STATE
PROTO = "src/caffe/proto/caffe.proto"
LAYER = "src/caffe/layers/sigmoid_cross_entropy_weight_loss_layer.cpp"
KERNEL = "src/caffe/util/weighted_sigmoid_loss.cpp"
FIXED = "src/caffe/util/io.cpp"
FRAGMENT = ROOT / "proto" / "sigmoid_cross_entropy_weight_loss.proto"
MODES = pytest.mark.parametrize("modernize", [[], ["--modernize"]], ids=["plain", "modernize"])


def apply(tree, *words, repo=ROOT, status=0):
    """Run apply.py; the exit status must be STATUS, and a failure one line, no traceback."""
    program = [sys.executable, "-B", repo / "scripts" / "apply.py", tree, *words]
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == status, run.stderr
    if status:
        assert run.stderr.count("\n") <= 1
    return run


def snapshot(tree):
    """{path: (mode, bytes)} of everything in the tree; bytes are None for a folder."""
    return {
        path.relative_to(tree).as_posix(): (
            path.stat().st_mode,
            None if path.is_dir() else path.read_bytes(),
        )
        for path in tree.rglob("*")
    }


def without_state(files):
    return {path: what for path, what in files.items() if not path.startswith(STATE)}


def times(tree):
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*")}


def our_sources():
    return [
        path.relative_to(ROOT).as_posix()
        for folder in ["include", "src"]
        for path in (ROOT / folder).rglob("*.*")
    ]


@pytest.fixture
def tree(pristine, tmp_path):
    """What apply.py looks at in a tree: the rest of Caffe would only be copied each time."""
    tree = tmp_path / "caffe"
    tree.mkdir()
    for folder in ["cmake", "include", "python", "src", "tools"]:
        shutil.copytree(pristine / folder, tree / folder, symlinks=True)
    for file in ["CMakeLists.txt", "LICENSE"]:
        shutil.copy(pristine / file, tree / file)
    return tree


@pytest.fixture
def other_version(tmp_path):
    """A copy of what apply.py reads, to be made into an older version of ours."""
    repo = tmp_path / "repo"
    for folder in ["caffe_patch", "devtools", "include", "proto", "scripts", "src"]:
        shutil.copytree(ROOT / folder, repo / folder)
    return repo


# Apply, again, remove


@MODES
def test_applied_tree_has_our_files_and_the_message(tree, modernize):
    stock = snapshot(tree)
    apply(tree, *modernize)
    for path in our_sources():
        assert (tree / path).read_bytes() == (ROOT / path).read_bytes()
    proto = (tree / PROTO).read_text()
    assert "message SigmoidCrossEntropyWeightLossParameter {" in proto
    assert "extend LayerParameter" not in proto
    changed = {path for path, what in stock.items() if snapshot(tree)[path] != what}
    assert PROTO in changed
    assert (FIXED in changed) == bool(modernize)


@MODES
def test_second_run_writes_nothing(tree, modernize):
    apply(tree, *modernize)
    before = times(tree)
    assert "nothing to change" in apply(tree, *modernize).stdout
    assert times(tree) == before


@MODES
def test_remove_restores_every_byte_and_mode(tree, modernize):
    (tree / PROTO).chmod(0o640)
    before = snapshot(tree)
    apply(tree, *modernize)
    assert (tree / PROTO).stat().st_mode & 0o777 == 0o640
    apply(tree, "--remove")
    assert snapshot(tree) == before


def test_remove_takes_away_folders_that_apply_made(tree):
    shutil.rmtree(tree / "include" / "caffe" / "util")
    before = snapshot(tree)
    apply(tree)
    apply(tree, "--remove")
    assert snapshot(tree) == before


def test_remove_where_nothing_was_applied(tree):
    before = snapshot(tree)
    assert "nothing to remove" in apply(tree, "--remove").stdout
    assert snapshot(tree) == before


def test_without_modernize_the_fixes_are_taken_back(tree, pristine):
    apply(tree, "--modernize")
    apply(tree)
    assert (tree / FIXED).read_bytes() == (pristine / FIXED).read_bytes()
    assert (tree / LAYER).exists()


def test_unchanged_files_keep_their_time_in_an_update(tree):
    apply(tree)
    before = times(tree)
    apply(tree, "--modernize")
    after = times(tree)
    assert after[tree / LAYER] == before[tree / LAYER]
    assert after[tree / PROTO] == before[tree / PROTO]
    assert after[tree / FIXED] != before[tree / FIXED]


def test_older_version_is_updated_and_removed_to_the_stock_tree(tree, other_version):
    stock = snapshot(tree)
    (other_version / LAYER).write_text("// older\n")
    (other_version / "src" / "caffe" / "layers" / "gone_since.cpp").write_text("// older\n")
    fragment = other_version / "proto" / FRAGMENT.name
    fragment.write_text(fragment.read_text().replace("stop_on_nan", "older_name"))
    apply(tree, "--modernize", repo=other_version)
    assert "older_name" in (tree / PROTO).read_text()

    apply(tree, "--modernize")
    assert not (tree / "src" / "caffe" / "layers" / "gone_since.cpp").exists()
    assert "older_name" not in (tree / PROTO).read_text()
    updated = snapshot(tree)
    apply(tree, "--remove")
    assert snapshot(tree) == stock
    apply(tree, "--modernize")
    assert without_state(snapshot(tree)) == without_state(updated)


# A tree of 2015: the forwarding headers make the folder by whose absence it is known

FORWARDERS = [
    "include/caffe/layers/loss_layer.hpp",
    "include/caffe/layers/sigmoid_cross_entropy_loss_layer.hpp",
]


@MODES
def test_tree_of_2015_is_updated_checked_and_removed(tree, other_version, modernize):
    _stand_in_trees.caffe_2015(tree)
    stock = snapshot(tree)
    (other_version / LAYER).write_text("// older\n")
    fragment = other_version / "proto" / "normalization_mode.proto"
    fragment.write_text(fragment.read_text().replace("NONE", "NOTHING"))
    apply(tree, repo=other_version)
    assert "NOTHING" in (tree / PROTO).read_text()
    assert all((tree / path).exists() for path in FORWARDERS)

    apply(tree, *modernize)
    assert "NOTHING" not in (tree / PROTO).read_text()
    assert all((tree / path).exists() for path in FORWARDERS)
    assert "nothing to change" in apply(tree, *modernize).stdout
    assert apply(tree, *modernize, "--check").stdout == ""
    apply(tree, "--remove")
    assert snapshot(tree) == stock


@pytest.mark.parametrize("after", [0, 5, 12])
def test_tree_of_2015_in_which_the_program_died(tree, after):
    _stand_in_trees.caffe_2015(tree)
    stock = snapshot(tree)
    assert run_stopping(tree, after, "die").returncode == 9
    apply(tree)
    apply(tree, "--remove")
    assert snapshot(tree) == stock


CLASHES = {
    "optional int32 normalization = 5;": "already has a LossParameter field normalization",
    "optional int32 x = 20181227;": "already uses LossParameter's number 20181227 for x",
    "enum Other { NONE = 0; }": "already has a NONE in LossParameter",
    "message NormalizationMode {}": "already has a NormalizationMode in LossParameter",
    "extensions 1000 to max;": "keeps LossParameter's normalization or its number",
}


@pytest.mark.parametrize(("line", "says"), CLASHES.items())
def test_clash_with_normalization_is_refused(tree, line, says):
    _stand_in_trees.no_modes(tree)
    _stand_in_trees.edit(tree, PROTO, r"(message LossParameter \{)", rf"\g<1>\n  {line}")
    before = snapshot(tree)
    assert says in apply(tree, status=2).stderr
    assert snapshot(tree) == before


# What the tree's owner is told


def test_tests_are_left_out_where_the_tree_has_no_gtest(tree):
    shutil.rmtree(tree / "src" / "gtest")
    before = snapshot(tree)
    assert "tests are left out: the tree has no gtest" in apply(tree).stdout
    assert (tree / LAYER).exists()
    assert not list(tree.rglob("*weighted_sigmoid_loss_cases.hpp"))
    assert not list((tree / "src" / "caffe" / "test").glob("*weight*"))
    apply(tree, "--remove")
    assert snapshot(tree) == before


@pytest.mark.parametrize(
    ("version", "makefile", "noted"),
    [
        ("4.8", "", True),
        ("5.4.0", "", True),
        ("6", "", False),
        ("12", "", False),
        ("none", "", False),
        ("5", "CXXFLAGS += -std=c++11\n", False),
        ("5", "CXXFLAGS += -std=gnu++14\n", False),
    ],
)
def test_old_compiler_is_told_of(tree, tmp_path, monkeypatch, version, makefile, noted):
    compiler = tmp_path / "old-g++"
    compiler.write_text(f"#!/bin/sh\necho {version}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    (tree / "Makefile").write_text(makefile)
    assert (
        "add -std=c++11 to the Makefile's CXXFLAGS and NVCCFLAGS" in apply(tree).stdout
    ) == noted


# Check


def test_check_prints_the_diff_and_writes_nothing(tree):
    before = times(tree)
    diff = apply(tree, "--check", status=1).stdout
    assert f"+++ b/{LAYER}\n" in diff
    assert "+message SigmoidCrossEntropyWeightLossParameter {\n" in diff
    assert times(tree) == before


def test_check_tells_an_applied_tree_by_its_status(tree):
    apply(tree)
    assert apply(tree, "--check").stdout == ""
    apply(tree, "--check", "--modernize", status=1)
    assert f"--- a/{LAYER}\n+++ /dev/null\n" in apply(tree, "--check", "--remove", status=1).stdout


@pytest.mark.parametrize("words", [["--check"], ["--modernize"]])
def test_reader_that_has_read_enough_is_no_error(tree, words):
    program = [sys.executable, "-B", ROOT / "scripts" / "apply.py", tree, *words]
    gone, end = os.pipe()
    os.close(gone)
    run = subprocess.run(program, stdout=end, stderr=subprocess.PIPE)
    os.close(end)
    assert run.stderr == b""
    if words != ["--check"]:
        assert apply(tree, *words, "--check").stdout == ""


def test_check_of_a_wrong_tree_is_an_error(tmp_path):
    apply(tmp_path, "--check", status=2)


# Trees that are left as they are


def add_text(path, text, at_end=True):
    def edit(tree):
        old = (tree / path).read_text() if (tree / path).exists() else ""
        (tree / path).write_text(old + text if at_end else text + old)

    return edit


def add_field(field):
    def edit(tree):
        old = (tree / PROTO).read_text()
        head = "message LayerParameter {"
        (tree / PROTO).write_text(old.replace(head, head + "\n  " + field, 1))

    return edit


def link(path):
    def edit(tree):
        (tree / path).rename(tree / "elsewhere")
        (tree / path).symlink_to(tree / "elsewhere")

    return edit


REFUSED = {
    "no proto": (lambda tree: (tree / PROTO).unlink(), f"has no {PROTO}"),
    "no loss layer": (
        lambda tree: (tree / "include/caffe/layers/loss_layer.hpp").unlink(),
        "has no include/caffe/layers/loss_layer.hpp",
    ),
    "no LayerParameter": (
        lambda tree: (tree / PROTO).write_text(
            (tree / PROTO).read_text().replace("message LayerParameter {", "message Other {")
        ),
        "no message LayerParameter",
    ),
    "our file": (add_text(KERNEL, "int a;\n"), f"{KERNEL} exists and is not ours"),
    "our layer": (
        add_text("src/caffe/layers/my.cpp", "REGISTER_LAYER_CLASS(SigmoidCrossEntropyWeightLoss);"),
        "my.cpp already has a layer SigmoidCrossEntropyWeightLoss",
    ),
    "our creator": (
        add_text(
            "src/caffe/layer_factory.cpp",
            "REGISTER_LAYER_CREATOR(\n    SigmoidCrossEntropyWeightLoss, GetIt);\n",
        ),
        "layer_factory.cpp already has a layer SigmoidCrossEntropyWeightLoss",
    ),
    "our message": (
        add_text(PROTO, "message SigmoidCrossEntropyWeightLossParameter {}\n"),
        "already has a message SigmoidCrossEntropyWeightLossParameter",
    ),
    "our field": (
        add_field("optional int32 sigmoid_cross_entropy_weight_loss_param = 149;"),
        "already has a LayerParameter field sigmoid_cross_entropy_weight_loss_param",
    ),
    "our number": (add_field("optional int32 x = 20181227;"), "number 20181227 for x"),
    "our number in a oneof": (
        add_field("oneof o { int32 y = 20181227; }"),
        "number 20181227 for y",
    ),
    "our number in an extension": (
        add_text(PROTO, "extend LayerParameter { optional int32 z = 20181227; }\n"),
        "number 20181227 for z",
    ),
    "our number in hexadecimal": (
        add_field("optional int32 x = 0x133F0EB;"),
        "number 0x133F0EB for x",
    ),
    "our number in octal": (add_field("optional int32 x = 0114770353;"), "0114770353 for x"),
    "our number reserved": (add_field("reserved 9000, 20181227;"), "reserved 9000 , 20181227"),
    "our number in a range": (add_field("extensions 1000 to max;"), "extensions 1000 to max"),
    "our name reserved": (
        add_field("reserved 'a', 'sigmoid_cross_entropy_weight_loss_param';"),
        "from use: reserved 'a' ,",
    ),
    "proto is a link": (link(PROTO), "is a symbolic link"),
    "folder is a link": (link("src/caffe/layers"), "src/caffe/layers is a symbolic link"),
}


@pytest.mark.parametrize(("edit", "says"), REFUSED.values(), ids=REFUSED)
def test_unfit_tree_is_left_untouched(tree, edit, says):
    edit(tree)
    before = snapshot(tree)
    assert says in apply(tree, status=2).stderr
    assert snapshot(tree) == before


@pytest.mark.parametrize(
    "edit",
    [
        add_text("src/caffe/my.cpp", "// REGISTER_LAYER_CLASS(SigmoidCrossEntropyWeightLoss)\n"),
        add_text("src/caffe/my.cpp", "REGISTER_LAYER_CLASS(SigmoidCrossEntropyWeightLossOld);\n"),
        add_field("optional int32 x = 20181226 [default = 20181227];"),
        add_field("reserved 2000 to 20181226, 20181228 to max; optional int32 reserved = 1999;"),
        add_text(PROTO, "message My { optional int32 x = 20181227; reserved 20181228 to max; }\n"),
        add_text(PROTO, "// message SigmoidCrossEntropyWeightLossParameter {\n"),
    ],
    ids=["comment", "longer name", "default", "ranges", "other message", "proto comment"],
)
def test_what_only_looks_like_ours_is_no_reason_to_refuse(tree, edit):
    edit(tree)
    apply(tree)


def test_fix_that_does_not_fit_is_left_out_whole_and_named(tree, pristine):
    path = tree / FIXED
    path.write_text(path.read_text().replace("CV_LOAD_IMAGE_COLOR", "MY_COLOR"))
    before = snapshot(tree)
    note = f"caffe_patch/10-opencv4.patch does not fit and is left out: {FIXED}: the hunk"
    run = apply(tree, "--modernize", "--check", status=1)
    assert note in run.stderr
    assert "MY_COLOR" not in run.stdout
    assert note in apply(tree, "--modernize").stdout
    other = "src/caffe/test/test_io.cpp"
    assert (tree / other).read_bytes() == (pristine / other).read_bytes()
    # The next patch changes the same file.
    assert "GOOGLE_PROTOBUF_VERSION" in path.read_text()
    apply(tree, "--remove")
    assert snapshot(tree) == before


def test_file_that_the_fork_lacks_needs_no_fix(tree):
    other = tree / "src/caffe/test/test_io.cpp"
    other.unlink()
    assert "note:" not in apply(tree, "--modernize").stdout
    assert not other.exists()
    assert "CV_LOAD_IMAGE" not in (tree / FIXED).read_text()


def test_read_only_files_are_changed_and_stay_read_only(tree):
    (tree / PROTO).chmod(0o444)
    before = snapshot(tree)
    apply(tree, "--modernize")
    assert (tree / PROTO).stat().st_mode & 0o777 == 0o444
    apply(tree, "--remove")
    assert snapshot(tree) == before
    # Stopped before the read-only file is in its place: what is left is read-only, too.
    assert run_stopping(tree, PROTO, "die").returncode == 9
    (left,) = (tree / STATE).glob(".caffe.proto.*")
    assert left.stat().st_mode & 0o777 == 0o444
    apply(tree)
    apply(tree, "--remove")
    assert snapshot(tree) == before


UNWRITABLE = """
import os, sys

folder = sys.argv.pop(1)
os.access = lambda path, mode: not path.endswith(folder)
sys.path.insert(0, os.path.dirname(sys.argv.pop(1)))
sys.argv[0] = "apply.py"
import apply
apply.program(apply.main)
"""


@pytest.mark.parametrize("folder", ["src/caffe/layers", "caffe"])
def test_read_only_folder_is_found_out_before_the_first_change(tree, folder):
    # Tests may run as root, who may write anywhere.
    before = snapshot(tree)
    program = [sys.executable, "-B", "-c", UNWRITABLE, folder, ROOT / "scripts/apply.py", tree]
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1
    assert "cannot be written to" in run.stderr
    assert snapshot(tree) == before


def test_fork_with_other_lines_above_and_a_fix_of_its_own(tree, pristine):
    (tree / FIXED).write_text("// a fork\n\n" + (pristine / FIXED).read_text())
    apply(tree, "--modernize")
    fixed = {path: (tree / path).read_text() for path in [FIXED, "src/caffe/test/test_io.cpp"]}
    assert "CV_LOAD_IMAGE" not in fixed[FIXED]
    apply(tree, "--remove")
    for path, text in fixed.items():
        (tree / path).write_text(text)
    apply(tree, "--modernize")
    assert {path: (tree / path).read_text() for path in fixed} == fixed


@pytest.mark.parametrize("words", [[], ["--modernize"], ["--remove"], ["--check"]])
@pytest.mark.parametrize("path", [LAYER, PROTO])
def test_edit_after_the_application_is_not_lost(tree, path, words):
    apply(tree)
    add_text(path, "// mine\n")(tree)
    before = snapshot(tree)
    run = apply(tree, *words, status=2)
    assert f"{path} was edited" in run.stderr
    assert ("-// mine\n" in run.stdout) == (words == ["--check"])
    assert snapshot(tree) == before


@pytest.mark.parametrize("words", [[], ["--remove"]])
def test_damaged_record_is_refused(tree, words):
    apply(tree)
    (tree / STATE / "original" / PROTO).write_text("")
    assert "is damaged" in apply(tree, *words, status=2).stderr
    (tree / STATE / "manifest.json").write_text("{")
    assert "is damaged" in apply(tree, *words, status=2).stderr


def test_contradicting_options_are_refused(tree):
    for words in (["--remove", "--modernize"], ["--check", "--patch", "x"]):
        program = [sys.executable, ROOT / "scripts" / "apply.py", tree, *words]
        assert subprocess.run(program, capture_output=True).returncode == 2


# Stopped midway

STOPPING = """
import functools, itertools, os, sys

after, how = sys.argv.pop(1), sys.argv.pop(1)
steps = itertools.count()

def due(words):
    return next(steps) >= int(after) if after.isdigit() else str(words[-1]).endswith(after)

def stopping(function, *words, **more):
    if due(words):
        if how == "die":
            os._exit(9)
        raise OSError(28, "No space left on device")
    return function(*words, **more)

for name in ["mkdir", "replace", "rmdir", "unlink"]:  # a function would be Python 3.9's method
    setattr(os, name, functools.partial(stopping, getattr(os, name)))
sys.argv[0] = sys.argv[1]
sys.path.insert(0, os.path.dirname(sys.argv.pop(1)))
import apply
apply.program(apply.main)
"""


def run_stopping(tree, after, how, *words):
    """AFTER this many steps, or at the one that puts this file in its place."""
    program = [sys.executable, "-B", "-c", STOPPING, str(after), how, ROOT / "scripts/apply.py"]
    return subprocess.run([*program, tree, *words], capture_output=True, text=True)


@pytest.mark.parametrize("after", [0, 3, 8, 21, 34])
@pytest.mark.parametrize("first", [["--modernize"], ["--remove"]], ids=["apply", "remove"])
@pytest.mark.parametrize("then", [["--modernize"], ["--remove"]], ids=["finish", "undo"])
def test_program_that_died_is_made_good_by_the_next(tree, first, then, after):
    stock = snapshot(tree)
    if first == ["--remove"]:
        apply(tree, "--modernize")
    assert run_stopping(tree, after, "die", *first).returncode == 9
    apply(tree, *then)
    if then == ["--remove"]:
        assert snapshot(tree) == stock
    else:
        finished = without_state(snapshot(tree))
        apply(tree, "--remove")
        assert snapshot(tree) == stock
        apply(tree, "--modernize")
        assert without_state(snapshot(tree)) == finished


@pytest.mark.parametrize("after", [3, 6, 9])
@pytest.mark.parametrize("then", [[], ["--remove"]], ids=["finish", "undo"])
def test_update_that_died_is_made_good_by_the_next(tree, other_version, then, after):
    stock = snapshot(tree)
    for path in our_sources():
        (other_version / path).write_text("// older\n")
    apply(tree, repo=other_version)
    assert run_stopping(tree, after, "die").returncode == 9
    apply(tree, *then)
    if then:
        assert snapshot(tree) == stock
    else:
        assert "nothing to change" in apply(tree).stdout


def test_full_disk_is_one_line_and_the_next_run_finishes(tree):
    run = run_stopping(tree, 12, "fail", "--modernize")
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "No space left on device" in run.stderr
    apply(tree, "--modernize")
    assert apply(tree, "--modernize", "--check").stdout == ""


# The self-contained patch


@pytest.mark.parametrize("kind", ["master", "caffe_2015"])
@MODES
def test_patch_makes_the_same_tree(tree, tmp_path, kind, modernize):
    _stand_in_trees.FIT[kind](tree)
    change = tmp_path / "new" / "layer.patch"
    apply(tree, *modernize, "--patch", change)
    assert not (tree / STATE).exists()

    patched = shutil.copytree(tree, tmp_path / "patched")
    with change.open() as stream:
        run = subprocess.run(
            ["patch", "-p1", "-F0"], cwd=patched, stdin=stream, capture_output=True, text=True
        )
    assert run.returncode == 0, run.stdout
    assert not {"offset", "fuzz", "warning"} & set(run.stdout.split())
    stock = snapshot(tree)
    apply(tree, *modernize)
    assert snapshot(patched) == without_state(snapshot(tree))

    again = tmp_path / "again.patch"
    apply(tree, *modernize, "--patch", again)
    assert again.read_bytes() == change.read_bytes()
    with change.open() as stream:
        subprocess.run(["patch", "-p1", "-R", "-s"], cwd=patched, stdin=stream, check=True)
    assert snapshot(patched) == stock


# Unified diffs

LINES = st.lists(st.sampled_from([b"a", b"b", b"-- c", b"++ d", b"\\ e", b"\x0c\xff", b""]))


def text(lines, ended):
    return b"\n".join(lines) + (b"\n" if ended and lines else b"")


@given(LINES, LINES, st.booleans(), st.booleans())
def test_diff_gives_the_new_file(old, new, old_ended, new_ended):
    before, after = text(old, old_ended), text(new, new_ended)
    if before == after:
        return
    diff = _unified_diff.write("x/y", before, after)
    (one,) = _unified_diff.parse(b"Why.\n\n" + diff)
    assert one.path == "x/y"
    assert _unified_diff.apply(before, one, moved_ok=False) == after


def one_diff(before, after):
    return _unified_diff.parse(_unified_diff.write("f", before, after))[0]


NUMBERS = [b"%d\n" % n for n in range(20)]
SEVENTH = one_diff(b"".join(NUMBERS), b"".join([*NUMBERS[:7], b"new\n", *NUMBERS[8:]]))


def test_moved_lines_are_found_only_where_allowed():
    moved = b"above\n" + b"".join(NUMBERS)
    assert b"6\nnew\n8\n" in _unified_diff.apply(moved, SEVENTH)
    with pytest.raises(Failure):
        _unified_diff.apply(moved, SEVENTH, moved_ok=False)


@pytest.mark.parametrize(
    "data",
    [b"above\n" + b"".join(NUMBERS) * 2, b"".join(NUMBERS).replace(b"5\n", b"five\n"), b"", None],
    ids=["two places", "changed context", "empty", "no file"],
)
def test_lines_that_do_not_fit_are_refused(data):
    with pytest.raises(Failure):
        _unified_diff.apply_once(data, SEVENTH)


def test_diff_that_is_applied_already_changes_nothing():
    once = _unified_diff.apply(b"".join(NUMBERS), SEVENTH)
    assert _unified_diff.apply_once(once, SEVENTH) == once
    (created,) = _unified_diff.parse(_unified_diff.write("f", None, b"x\n"))
    assert _unified_diff.apply_once(b"x\n", created) == b"x\n"
    with pytest.raises(Failure):
        _unified_diff.apply_once(b"y\n", created)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no diff\n",
        b"--- a/f\n+++ b/f\n",
        b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n",
        b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n*b\n",
        b"--- a/f\n+++ b/f\n@@ one @@\n-a\n+b\n",
        b"--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
    ],
)
def test_what_is_no_diff_is_refused(data):
    with pytest.raises(Failure):
        _unified_diff.parse(data)


# caffe.proto

PROTO_LAYOUTS = {
    "stock": 'syntax = "proto2";\npackage caffe;\nmessage LayerParameter {\n'
    "  optional string name = 1;\n}\n",
    "braces in comments and strings": 'syntax = "proto2";\n/* message LayerParameter { */\n'
    'message LayerParameter { // {\n  optional string name = 1 [default = "}\'//"];\n'
    "  enum E { A = 0; }\n  optional E e = 2; // }\n} // end\nmessage Z {}\n",
    "one line": 'syntax = "proto2"; message LayerParameter { optional string name = 1; }\n',
    "no newline at the end": 'syntax = "proto2";\nmessage LayerParameter {\n}',
    "CRLF": 'syntax = "proto2";\r\nmessage LayerParameter {\r\n}\r\n',
}


@pytest.mark.parametrize("layout", PROTO_LAYOUTS.values(), ids=PROTO_LAYOUTS)
def test_protoc_finds_the_field_in_any_layout(layout, tmp_path):
    added = _caffe_proto.Addition(FRAGMENT.read_text()).add_to(layout.encode())
    assert added.count(b"\n") == added.count(b"\r\n") or b"\r" not in added
    (tmp_path / "caffe.proto").write_bytes(added)
    package = "caffe." if "package" in layout else ""
    message = subprocess.run(
        ["protoc", "-I.", f"--encode={package}LayerParameter", "caffe.proto"],
        cwd=tmp_path,
        input=b"sigmoid_cross_entropy_weight_loss_param { cls_weight: 3 axis: -1 }",
        capture_output=True,
    )
    assert message.returncode == 0, message.stderr
    tag = 20181227 << 3 | 2  # The field's number and wire type, seven bits a byte.
    assert message.stdout[:4] == bytes([tag >> n & 127 | 128 * (n < 21) for n in (0, 7, 14, 21)])


@pytest.mark.parametrize("broken", ["message LayerParameter {", "}"])
def test_unbalanced_proto_is_refused(broken):
    with pytest.raises(Failure):
        _caffe_proto.Addition(FRAGMENT.read_text()).add_to(broken.encode())


# The patches, and what apply.py runs on


def check_patches(repo, pristine):
    program = [sys.executable, "-B", repo / "devtools" / "check_patches.py", pristine]
    environment = {**os.environ, "PYTHONPATH": str(repo / "scripts")}
    return subprocess.run(program, capture_output=True, text=True, env=environment)


def test_patches_are_in_order(pristine):
    run = check_patches(ROOT, pristine)
    assert run.returncode == 0, run.stdout + run.stderr


def test_wrong_patches_are_found(other_version, pristine):
    folder = other_version / "caffe_patch"
    first, second = sorted(folder.glob("*.patch"))[:2]
    moved = first.read_text().replace("@@ -20,8 +19,8 @@", "@@ -21,8 +20,8 @@")
    assert moved != first.read_text()
    first.write_text(moved)
    second.write_text("Title\n\n" + second.read_text()[second.read_text().index("--- a/") :])
    (folder / "99-unlisted.patch").write_text(first.read_text())
    lines = (folder / "series").read_text().splitlines()
    (folder / "series").write_text("\n".join([*lines, "97-absent.patch", lines[-1]]) + "\n")
    run = check_patches(other_version, pristine)
    assert run.returncode == 1
    for problem in [
        "series: not in the order",
        "series: does not list 99-unlisted.patch",
        "series: lists 97-absent.patch",
        f"{first.name}: src/caffe/test/test_io.cpp",
        f"{second.name}: wants a title",
    ]:
        assert problem in run.stdout


def test_apply_imports_no_package(tree):
    """-I -S: no site-packages, so that the standard library is all there is."""
    program = "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.argv[:] = sys.argv[2:]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    scripts = ROOT / "scripts"
    words = ["-I", "-S", "-B", "-c", program, scripts, scripts / "apply.py", tree]
    run = subprocess.run([sys.executable, *words], capture_output=True)
    assert run.returncode == 0, run.stderr

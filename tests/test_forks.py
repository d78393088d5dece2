"""scripts/apply.py on forks of Caffe: those that a registry has, and stand-ins for the others.

`make forks` builds two of them with the layer, which takes too long for here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import _download
import _real_trees
import _stand_in_trees

ROOT = Path(__file__).resolve().parent.parent
PROTO = "src/caffe/proto/caffe.proto"
LAYER = "src/caffe/layers/sigmoid_cross_entropy_weight_loss_layer.cpp"
TEST = "src/caffe/test/test_sigmoid_cross_entropy_weight_loss_layer.cpp"
# Whose marks are such that the layer's test may not compile.
TEST_COMPILED = {"master", "intel", "rc3", "caffe_2015"}
NUMBER = 20181227
# Which toolchain fixes do not fit: those trees have lines of their own there, often the same fix.
LEFT_OUT = {
    "cmu": {"10", "40"},
    "debian-patched": {"10", "40"},
    "brocolli-3.0.0": {"20", "61"},
    "brocolli-9.0.2": {"10", "20", "30", "40", "44", "50", "51", "54", "61"},
}
# The registry's trees are to be had, or the test says why not.
REAL = ["debian", "debian-patched", "brocolli-3.0.0", "brocolli-9.0.2"]


def apply(tree, *words, status=0):
    program = [sys.executable, "-B", ROOT / "scripts" / "apply.py", tree, *words]
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == status, run.stdout + run.stderr
    return run


def git(tree, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a", "-c", "core.autocrlf=false"]
    run = subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)
    return run.stdout


def commit(tree):
    if not (tree / ".git").exists():
        git(tree, "init", "--quiet")
        # Whatever the tree's .gitignore says: all that the fork has, as its makers have it.
        git(tree, "add", "--all", "--force")
        git(tree, "commit", "--quiet", "--message=fork")


def number_of_fixes():
    return len(list((ROOT / "caffe_patch").glob("*.patch")))


@pytest.fixture
def copy(pristine, tmp_path):
    """What apply.py looks at in upstream's tree."""
    tree = tmp_path / "fork"
    for folder in ["cmake", "include", "python", "src", "tools"]:
        shutil.copytree(pristine / folder, tree / folder, symlinks=True)
    for file in ["CMakeLists.txt", "Makefile", "Makefile.config.example"]:
        if (pristine / file).exists():
            shutil.copy(pristine / file, tree / file)
    return tree


@pytest.fixture
def fork(request, tmp_path):
    """The tree of a name, in git."""
    name = request.param
    if name in _real_trees.TREES:
        tree = tmp_path / "fork"
        try:
            _real_trees.TREES[name](tree)
        except _download.Unavailable as error:
            pytest.skip(f"{name} cannot be had: {error}")
    else:
        tree = request.getfixturevalue("copy")
        _stand_in_trees.FIT[name](tree)
    commit(tree)
    return name, tree


FORKS = pytest.mark.parametrize("fork", [*REAL, *_stand_in_trees.FIT], indirect=True)


def message_bytes(tree, folder, text=b"sigmoid_cross_entropy_weight_loss_param { cls_weight: 3 }"):
    """A LayerParameter, as protoc writes it by the tree's caffe.proto."""
    run = subprocess.run(
        ["protoc", f"-I{tree / 'src/caffe/proto'}", "--encode=caffe.LayerParameter", "caffe.proto"],
        cwd=folder,
        input=text,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def tag(number, wire_type):
    """What a field begins with: its number and wire type, seven bits a byte."""
    value = number << 3 | wire_type
    return bytes([value >> n & 127 | 128 * (n < 21) for n in (0, 7, 14, 21)])


def compile_files(tree, folder, sources):
    """What the compiler says of these in this tree, by the tree's own headers."""
    generated = folder / "generated"
    (generated / "caffe" / "proto").mkdir(parents=True)
    proto = tree / "src" / "caffe" / "proto"
    subprocess.run(
        ["protoc", f"-I{proto}", f"--cpp_out={generated / 'caffe/proto'}", proto / "caffe.proto"],
        check=True,
    )
    # The first two as every build of Caffe has them: what is generated comes before include/.
    options = ["-std=c++11", "-fsyntax-only", "-DCPU_ONLY", f"-I{generated}"]
    options += [f"-I{tree}/include", f"-I{tree}/src", "-I/usr/include/hdf5/serial"]
    files = [tree / path for path in sources]
    run = subprocess.run(["g++", *options, *files], capture_output=True, text=True)
    return run.stderr if run.returncode else ""


@FORKS
def test_layer_fits(fork, tmp_path):
    name, tree = fork
    before = git(tree, "status", "--porcelain")
    apply(tree)
    assert message_bytes(tree, tmp_path).startswith(tag(NUMBER, 2))
    assert compile_files(tree, tmp_path, [LAYER, *[TEST] * (name in TEST_COMPILED)]) == ""
    apply(tree, "--remove")
    assert git(tree, "status", "--porcelain") == before


@pytest.mark.parametrize("fork", ["no_modes", "caffe_2015"], indirect=True)
def test_normalization_is_added_where_it_is_missing(fork, tmp_path):
    _, tree = fork
    assert "LossParameter's normalization = 20181227, which the tree's" in apply(tree).stdout
    text = b"loss_param { normalization: VALID }"
    assert message_bytes(tree, tmp_path, text).endswith(tag(NUMBER, 0) + b"\1")


@FORKS
def test_fixes_that_fit_are_applied_and_the_others_named(fork):
    name, tree = fork
    before = git(tree, "status", "--porcelain")
    output = apply(tree, "--modernize").stdout
    left_out = re.findall(r"^note: caffe_patch/(\d+)-\S+ does not fit", output, re.MULTILINE)
    assert len(left_out) == len(set(left_out)) < number_of_fixes()
    assert set(left_out) == LEFT_OUT.get(name, set())
    assert "changed src/caffe/common.cpp" in output
    assert apply(tree, "--modernize", "--check").stdout == ""
    apply(tree, "--remove")
    assert git(tree, "status", "--porcelain") == before


@pytest.mark.parametrize(
    ("make", "says"), _stand_in_trees.UNFIT.values(), ids=_stand_in_trees.UNFIT
)
@pytest.mark.parametrize("words", [[], ["--modernize"], ["--check"], ["--patch", "layer.patch"]])
def test_tree_that_the_layer_does_not_fit_is_named(copy, make, says, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(copy)
    commit(copy)
    run = apply(copy, *words, status=2)
    assert says in run.stderr
    assert "with its data layers in place of the tree's own" in run.stderr
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""
    assert git(copy, "status", "--porcelain", "--ignored") == b""
    assert not Path("layer.patch").exists()


def test_folder_that_is_no_caffe_is_named(tmp_path):
    for words in ([], ["--remove"]):
        assert "is not a Caffe source tree" in apply(tmp_path, *words, status=2).stderr
        assert "Traceback" not in apply(tmp_path / "nowhere", *words, status=2).stderr


@pytest.mark.parametrize("fork", ["crlf"], indirect=True)
def test_line_ends_stay(fork):
    _, tree = fork
    apply(tree, "--modernize")
    for path in git(tree, "diff", "--name-only").decode().split():
        data = (tree / path).read_bytes()
        if path.endswith((".cpp", ".cu", ".proto", ".txt", ".cmake")):
            assert data.count(b"\r\n") == data.count(b"\n"), path


# What the owner is to see to


@pytest.mark.parametrize("fork", ["microsoft"], indirect=True)
def test_list_of_sources_is_named(fork):
    _, tree = fork
    note = "note: windows/libcaffe/libcaffe.vcxproj lists its sources by name"
    assert note in apply(tree).stdout
    assert "note:" not in apply(tree, "--remove").stdout


def test_generated_file_of_the_former_proto_is_named(copy):
    generated = copy / "include" / "caffe" / "proto" / "caffe.pb.h"
    generated.parent.mkdir()
    generated.write_text("// generated\n")
    assert "note: include/caffe/proto/caffe.pb.h is from the former" in apply(copy).stdout
    generated.write_text("class SigmoidCrossEntropyWeightLossParameter;\n")
    assert "note:" not in apply(copy).stdout


def test_documents_commands_print_what_it_says(tmp_path, pristine):
    """On the fork that it names, and a stand-in for one that is refused."""
    text = (ROOT / "docs" / "forks.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- apply output -->\n```console\n(.*?)```", text, re.DOTALL)[1]
    try:
        _real_trees.TREES["brocolli-9.0.2"](tmp_path / "ssd")
    except _download.Unavailable as error:
        pytest.skip(f"brocolli-9.0.2 cannot be had: {error}")
    shutil.rmtree(tmp_path / "ssd" / ".git")
    commit(tmp_path / "ssd")
    shutil.copytree(pristine / "include", tmp_path / "nvcaffe" / "include")
    shutil.copytree(pristine / "src" / "caffe", tmp_path / "nvcaffe" / "src" / "caffe")
    _stand_in_trees.nvidia_0_17(tmp_path / "nvcaffe")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    assert len(commands) == 5
    printed = ""
    for command in commands:
        run = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed += f"$ {command}\n{run.stdout}"
    assert printed == block


# Git


@pytest.fixture
def repository(copy):
    (copy / "README").write_text("a fork\n")
    commit(copy)
    return copy


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("words", [[], ["--modernize"], ["--check"]])
def test_uncommitted_change_of_a_file_that_is_to_change_is_refused(repository, staged, words):
    proto = repository / PROTO
    proto.write_text(proto.read_text() + "// mine\n")
    if staged:
        git(repository, "add", PROTO)
    before = git(repository, "status", "--porcelain", "--ignored")
    assert (
        f"{PROTO} has changes that are not committed" in apply(repository, *words, status=2).stderr
    )
    assert git(repository, "status", "--porcelain", "--ignored") == before


def test_file_that_only_the_fixes_change_matters_only_to_them(repository):
    path = repository / "src" / "caffe" / "common.cpp"
    path.write_text(path.read_text() + "// mine\n")
    before = git(repository, "status", "--porcelain")
    assert "common.cpp has changes" in apply(repository, "--modernize", status=2).stderr
    apply(repository)
    apply(repository, "--remove")
    assert git(repository, "status", "--porcelain") == before
    assert path.read_text().endswith("// mine\n")


def test_unrelated_changes_are_left_alone(repository):
    (repository / "README").write_text("mine\n")
    (repository / "untracked").write_text("mine\n")
    before = git(repository, "status", "--porcelain")
    apply(repository, "--modernize")
    apply(repository, "--remove")
    assert git(repository, "status", "--porcelain") == before


def test_new_date_is_no_change(repository):
    os.utime(repository / PROTO, (1, 1))
    apply(repository)


def test_applied_and_committed_tree_is_brought_up_to_date_and_removed(repository):
    original = (repository / PROTO).read_bytes()
    apply(repository)
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--message=layer")
    apply(repository, "--modernize")
    apply(repository, "--remove")
    assert (repository / PROTO).read_bytes() == original


def test_fork_in_a_folder_of_a_repository(copy):
    git(copy.parent, "init", "--quiet")
    git(copy.parent, "add", "--all", "--force")
    git(copy.parent, "commit", "--quiet", "--message=project")
    apply(copy)
    apply(copy, "--remove")
    assert git(copy.parent, "status", "--porcelain") == b""
    (copy / PROTO).write_text((copy / PROTO).read_text() + "// mine\n")
    assert "not committed" in apply(copy, status=2).stderr


def test_hook_s_variables_do_not_lead_to_another_repository(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    (repository / PROTO).write_text((repository / PROTO).read_text() + "// mine\n")
    assert "not committed" in apply(repository, status=2).stderr


def test_what_git_cannot_tell_is_said(repository):
    shutil.rmtree(repository / ".git" / "objects")
    assert "note: not looked for uncommitted changes: " in apply(repository).stdout


@pytest.mark.skipif(not shutil.which("python3.6"), reason="this machine has no python3.6")
def test_python_3_6_runs_it(copy):
    argv = ["python3.6", "-B", ROOT / "scripts" / "apply.py", copy]
    run = subprocess.run([*argv, "--modernize"], capture_output=True, text=True)
    if run.returncode == 127 or "pyenv" in run.stderr:
        pytest.skip("the python3.6 on PATH is a shim with nothing behind it")
    assert run.returncode == 0, run.stderr
    assert apply(copy, "--modernize", "--check").stdout == ""
    assert subprocess.run([*argv, "--remove"], capture_output=True).returncode == 0

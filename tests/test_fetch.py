"""scripts/fetch.py: git's ids, trees and tarballs that users name, and the sources on the network.

Servers are never asked: apt and pip are pointed at this machine, where nothing or a stand-in
answers.
"""

import errno
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import _download
import _git_tree
import _mirrors
import _unified_diff
import fetch
from _common import Failure

ROOT = Path(__file__).resolve().parent.parent

# Upstream's ids at 9b891540183ddc834a02b2bd81b31afae71b2153, as `git ls-tree` has them in a clone.
UPSTREAM = {
    "src": "3c4048f1437536dc5056525f303b9ec8166143cf",
    "include": "ae3872f788b8ef76fc323377cfd2d0b3a534e678",
    "cmake": "dcdb007d2cf868bb671d91caf685b52a9197a520",
    "python": "1519fc5877ab10dbdb5e88d0ac1cbf97a79e7dd8",
    "tools": "da5440d900a25bae422da37518deb07374567b96",
    "CMakeLists.txt": "27d172f900bd4ec37dcfe01fde0c8a28e740005a",
    "Makefile": "b7660e852d631dcf514ac32a3d901d4479101a9e",
    "Makefile.config.example": "24ca632783a3f24eb650761a9c6f88ca2df1fd42",
}
NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture
def tree(pristine, tmp_path):
    """A copy of upstream's tree, to change."""
    return shutil.copytree(pristine, tmp_path / "my caffe")


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "fetched" / "caffe"


def run_fetch(dest, source=None, **environment):
    argv = [sys.executable, ROOT / "scripts" / "fetch.py", "--dest", dest]
    return subprocess.run(
        argv + (["--source", source] if source else []),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def refusal(done):
    """The one line that a refused source gets."""
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def git(folder, *argv):
    identity = ["-c", "user.name=a", "-c", "user.email=a", "-c", "core.autocrlf=false"]
    command = ["git", *identity, *argv]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def repository(folder, files, gitignore=""):
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / ".gitignore").write_text(gitignore)
    git(folder, "init", "--quiet")
    return folder


def names(folder):
    return [path.name for path in folder.iterdir() if path.name != ".git"]


class TestGitIds:
    def test_are_those_of_git(self, tmp_path):
        # "a" is sorted as "a/": after "a.b", before "a0".
        files = ["a/deep/er/file", "a.b", "a0", "a-", "program", "Grüße", "empty", "lone/one"]
        repo = repository(tmp_path / "repo", [*files, "gone.o", "lone/gone.o"], "*.o\n")
        (repo / "program").chmod(0o755)
        (repo / "empty").write_bytes(b"")
        (repo / "a0").write_bytes(bytes(range(256)))
        (repo / "link").symlink_to("no/such/file")
        (repo / "no files").mkdir()
        git(repo, "add", "--all")
        assert git(repo, "ls-files", "*.o") == ""
        found = _git_tree.read(repo, names(repo))
        assert _git_tree.tree_id(found) == git(repo, "write-tree").strip()
        assert _git_tree.git_id("blob", (repo / "a0").read_bytes()) == (
            git(repo, "hash-object", "a0").strip()
        )

    def test_do_not_depend_on_how_the_tree_comes(self, tmp_path):
        repo = repository(tmp_path / "repo", ["a/b", "a.c", "gone.o"], "*.o\n")
        (repo / "a" / "b").chmod(0o755)
        (repo / "a" / "link").symlink_to("b")
        tarball = tmp_path / "repo.tar.xz"
        with tarfile.open(tarball, "w:xz") as archive:
            archive.add(repo, "repo-1.0")
        wanted = ["a", "a.c", "gone.o"]
        assert _git_tree.read(tarball, wanted) == _git_tree.read(repo, wanted)

    @pytest.mark.parametrize(
        "rules",
        [
            "*.o\nbuild\n",
            "/build\n",
            "sub/build/\n",
            "build/\n",
            "sub/*\n",
            "sub/*\n!sub/x.o\n",
            "sub\n!sub/x.o\n",
            "**/build\n",
            "deep/**\n",
            "deep/**/x.o\n",
            "?.o\n# comment\n\n  \n",
            "*\n!deep\n",
            "x.o \n",
            "[x].c\nx.c\n",
        ],
    )
    def test_ignore_what_git_ignores(self, tmp_path, rules):
        places = ["", "sub/", "deep/", "deep/er/", "deep/er/still/", "build/", "sub/build/"]
        files = [place + name for place in places for name in ("x.o", "xy.o", "x.c")]
        files += ["deep/er/build"]
        repo = repository(tmp_path, files, rules)
        listed = git(repo, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
        found = _git_tree.read(repo, names(repo))
        assert set(found) - {".gitignore"} == set(listed) - {".gitignore", ""}


class TestUpstream:
    def test_is_what_the_recorded_ids_say(self):
        recorded = {**fetch.SOURCE["trees"], **{p: i[0] for p, i in fetch.SOURCE["files"].items()}}
        assert {path: recorded[path] for path in UPSTREAM} == UPSTREAM

    def test_has_the_files_that_are_listed(self, pristine):
        files = fetch.upstream_part(pristine)
        in_trees = {
            path: fetch.described(entry)
            for path, entry in files.items()
            if any(path.startswith(top + "/") for top in fetch.SOURCE["trees"])
        }
        lacking = [path for path in fetch.LISTED if path not in in_trees]
        assert {**in_trees, **{path: fetch.LISTED[path] for path in lacking}} == fetch.LISTED
        # PyPI's sdist, which is the last resort, has no images.
        assert all(path.startswith("examples/images/") for path in lacking)


@pytest.fixture
def complete(pristine):
    if not (pristine / "Makefile").exists():
        pytest.skip("the source was fetched from PyPI, which has not all of upstream's files")


@pytest.mark.usefixtures("complete")
class TestNamedTree:
    def test_is_taken(self, tree, dest):
        done = run_fetch(dest, tree)
        assert done.returncode == 0, done.stderr
        assert fetch.upstream_part(dest) == fetch.upstream_part(tree)

    def test_that_was_built_in_is_taken_without_what_was_built(self, tree, dest):
        shutil.copy(tree / "LICENSE", tree / "Makefile.config")
        built = [
            ".build_release/src/caffe/net.o",
            "build/lib/libcaffe.so",
            "distribute/include/caffe/net.hpp",
            "examples/mnist/mnist_train_lmdb/data.mdb",
            "include/caffe/proto/caffe.pb.h",
            "models/mine/train_val.prototxt",
            "models/bvlc_alexnet/bvlc_alexnet.caffemodel",
            "python/caffe/__pycache__/io.cpython-311.pyc",
            "python/caffe/_caffe.so",
            "python/caffe/proto/caffe_pb2.py",
            "python/caffe/proto/__init__.py",
            "src/caffe/layers/.relu_layer.cpp.swp",
            "src/caffe/net.o",
            "src/caffe/proto/caffe.pb.cc",
            "src/caffe/proto/caffe.pb.h",
            "tools/.cache/index",
        ]
        for path in built:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text("built")
        done = run_fetch(dest, tree)
        assert done.returncode == 0, done.stderr
        assert [path for path in built if (dest / path).exists()] == []
        fetch.verify(fetch.upstream_part(dest))

    def test_with_one_changed_byte_is_refused(self, tree, dest):
        changed = tree / "src" / "caffe" / "net.cpp"
        wanted = git(tree, "hash-object", changed).strip()
        data = bytearray(changed.read_bytes())
        data[1000] ^= 1
        changed.write_bytes(data)
        line = refusal(run_fetch(dest, tree))
        for word in ("src/caffe/net.cpp", git(tree, "hash-object", changed).strip(), wanted):
            assert word in line
        assert not dest.exists()

    def test_with_a_changed_file_at_its_top_is_refused(self, tree, dest):
        with (tree / "CMakeLists.txt").open("a") as stream:
            stream.write("\n")
        got = git(tree, "hash-object", "CMakeLists.txt").strip()
        differs = f"CMakeLists.txt: got 100644 {got}, wanted {UPSTREAM['CMakeLists.txt']}"
        assert differs in refusal(run_fetch(dest, tree))

    @pytest.mark.parametrize(
        ("path", "change"),
        [
            ("python/draw_net.py", lambda path: path.chmod(0o644)),
            ("src/caffe/extra.cpp", lambda path: path.write_text("")),
            ("src/caffe/blob.cpp", lambda path: path.unlink()),
            ("src/caffe/syncedmem.cpp", lambda path: link(path)),
            ("Makefile", lambda path: path.unlink()),
        ],
        ids=["mode", "extra", "missing", "link", "missing at the top"],
    )
    def test_that_differs_is_refused_with_the_path(self, tree, dest, path, change):
        change(tree / path)
        assert f": {path}: got " in refusal(run_fetch(dest, tree))
        assert not dest.exists()

    @pytest.mark.parametrize("top", ["", "caffe-master/", "./"], ids=["flat", "in a folder", "dot"])
    def test_may_be_a_tarball(self, tree, dest, tmp_path, top):
        tarball = tmp_path / "caffe.tar.gz"
        with tarfile.open(tarball, "w:gz", compresslevel=1) as archive:
            for path in sorted(tree.iterdir()):
                archive.add(path, top + path.name)
        done = run_fetch(dest, tarball)
        assert done.returncode == 0, done.stderr
        assert fetch.upstream_part(dest) == fetch.upstream_part(tree)
        whole = tarball.read_bytes()
        tarball.write_bytes(whole[: len(whole) // 2])
        assert "nor a whole tarball" in refusal(run_fetch(dest, tarball))
        fetch.verify(fetch.upstream_part(dest))

    def test_replaces_a_fetched_tree_that_was_changed(self, tree, dest):
        run_fetch(dest, tree)
        (dest / "src" / "caffe" / "net.cpp").write_text("")
        (dest / "src" / "caffe" / "extra.cpp").write_text("")
        assert run_fetch(dest, tree).returncode == 0
        assert fetch.upstream_part(dest) == fetch.upstream_part(tree)
        assert not (dest / "src" / "caffe" / "extra.cpp").exists()

    def test_is_not_written_again(self, tree, dest):
        run_fetch(dest, tree)
        before = dest.stat().st_ino, (dest / "Makefile").stat().st_mtime_ns
        for source in (tree, None):
            assert run_fetch(dest, source).returncode == 0
            assert before == (dest.stat().st_ino, (dest / "Makefile").stat().st_mtime_ns)

    def test_goes_in_whole_or_not_at_all(self, tree, dest, monkeypatch):
        real = Path.write_bytes
        left = [100]

        def full_disk(path, data):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return real(path, data)

        monkeypatch.setattr(Path, "write_bytes", full_disk)
        argv = ["fetch.py", "--source", str(tree), "--dest", str(dest)]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(OSError, match="No space left on device"):
            fetch.main()
        assert os.listdir(dest.parent) == [".lock"]

    def test_clears_away_what_a_killed_run_left(self, tree, dest):
        half = dest.parent / (_download.UNFINISHED + "abc") / "new" / "src"
        half.mkdir(parents=True)
        (half / "file").write_text("half")
        assert run_fetch(dest, tree).returncode == 0
        assert sorted(os.listdir(dest.parent)) == [".lock", "caffe"]


def link(path):
    path.unlink()
    path.symlink_to("blob.cpp")


def test_a_path_that_holds_no_caffe_is_refused(dest, tmp_path):
    assert "does not exist" in refusal(run_fetch(dest, tmp_path / "nothing"))
    assert "holds no Caffe" in refusal(run_fetch(dest, tmp_path))
    (tmp_path / "text").write_text("text")
    assert "nor a whole tarball" in refusal(run_fetch(dest, tmp_path / "text"))


@pytest.fixture
def apt_sources(tmp_path, monkeypatch):
    """Writes the apt sources that this machine seems to have."""
    parts = tmp_path / "apt" / "sources.list.d"
    parts.mkdir(parents=True)
    config = tmp_path / "apt" / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{parts}";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))

    def write(name, text):
        (parts / name).write_text(text)

    return write


def test_the_mirror_is_that_of_the_machine(apt_sources, tmp_path):
    apt_sources("none.list", "# deb http://comment.invalid/debian bookworm main\n")
    apt_sources(
        "old.list",
        "deb [arch=amd64,arm64 trusted=no] http://one.invalid/debian/ bookworm main contrib\n"
        "deb http://one.invalid/security bookworm-security main\n"
        "deb http://other.invalid/tool bookworm stable\n",
    )
    apt_sources(
        "new.sources",
        "Types: deb deb-src\nURIs: http://two.invalid/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://off.invalid/debian\nSuites: bookworm\nComponents: main\n"
        "Enabled: no\n",
    )
    mirrors = _download._mirrors(tmp_path / "work")
    assert sorted(mirrors) == ["http://one.invalid/debian", "http://two.invalid/debian"]


def test_without_network_it_says_so_in_one_line(apt_sources, dest):
    apt_sources("dead.list", f"deb {NOBODY_LISTENS}/debian bookworm main\n")
    done = run_fetch(dest, PIP_INDEX_URL=f"{NOBODY_LISTENS}/simple")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Connection refused" in done.stderr
    assert "CAFFE_SOURCE=PATH" in done.stderr
    assert os.listdir(dest.parent) == [".lock"]


def test_what_never_answers_is_not_waited_for(apt_sources, dest, hung, monkeypatch):
    apt_sources("hung.list", f"deb {hung}/debian bookworm main\n")
    monkeypatch.setenv("PIP_INDEX_URL", f"{hung}/simple")
    for module in (_mirrors, _download):
        monkeypatch.setattr(module, "PATIENCE", 1)
    with pytest.raises(Failure, match=r"debian did not answer in 1 s; .* timed out; name"):
        fetch.fetch(None, dest)


class Index:
    """A package index on this machine with a stand-in for PyPI's sdist of Caffe."""

    def __init__(self, folder, pristine):
        self.package = fetch.SOURCE["pypi"]
        self.page = folder / "simple" / self.package["project"]
        self.page.mkdir(parents=True)
        self.tarball = folder / "files" / self.package["file"]
        self.tarball.parent.mkdir()
        self.tarball.write_bytes(sdist(pristine, folder / "sdist"))
        link = f"../../files/{self.package['file']}#sha256=0"
        (self.page / "index.html").write_text(f'<a href="{link}">{self.package["file"]}</a>')
        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def sdist(pristine, folder):
    """What PyPI's sdist is like: without examples, with another Makefile, two files changed."""
    left_out = shutil.ignore_patterns("examples", "__pycache__")
    shutil.copytree(pristine, folder, ignore=left_out)
    (folder / "Makefile").write_text("another")
    (folder / "setup.py").write_text("")
    patch = (fetch.DATA / fetch.SOURCE["pypi"]["patch"]).read_bytes()
    for change in _unified_diff.parse(patch):
        path = folder / change.path
        change.hunks = [(start, after, before) for start, before, after in change.hunks]
        path.write_bytes(_unified_diff.apply(path.read_bytes(), change))
    packed = folder.with_suffix(".tar.gz")
    with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
        archive.add(folder, "brocolli-caffe-3.0.0")
    return packed.read_bytes()


@pytest.fixture
def index(pristine, tmp_path, monkeypatch, apt_sources):
    index = Index(tmp_path / "index", pristine)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    digest = hashlib.sha256(index.tarball.read_bytes()).hexdigest()
    monkeypatch.setitem(fetch.SOURCE["pypi"], "sha256", digest)
    yield index
    index.server.shutdown()
    index.server.server_close()


class TestPyPI:
    def test_is_asked_when_apt_has_nothing(self, index, dest, pristine, capsys):
        fetch.fetch(None, dest)
        out = capsys.readouterr().out
        assert "left out and not checked: Makefile" in out
        got, whole = fetch.upstream_part(dest), fetch.upstream_part(pristine)
        left_out = {path for path in whole if path not in got}
        assert got == {path: entry for path, entry in whole.items() if path in got}
        assert left_out <= {"Makefile", "examples/CMakeLists.txt"} | {
            path for path in whole if path.startswith("examples/images/")
        }
        assert not (dest / "setup.py").exists()

    def test_is_not_asked_again(self, index, dest):
        fetch.fetch(None, dest)
        index.server.shutdown()
        fetch.fetch(None, dest)
        shutil.rmtree(dest)
        fetch.fetch(None, dest)
        assert fetch.is_upstream(dest)

    def test_is_asked_again_when_the_download_is_not_whole(self, index, dest):
        half = index.tarball.read_bytes()[:100_000]
        dest.parent.mkdir()
        (dest.parent / index.tarball.name).write_bytes(half)
        fetch.fetch(None, dest)
        assert (dest.parent / index.tarball.name).read_bytes() == index.tarball.read_bytes()
        assert fetch.is_upstream(dest)

    def test_is_refused_when_it_has_another_file(self, index, dest):
        index.tarball.write_bytes(index.tarball.read_bytes() + b"\n")
        with pytest.raises(Failure, match="has another brocolli-caffe") as stop:
            fetch.fetch(None, dest)
        assert stop.value.status == 1
        assert os.listdir(dest.parent) == [".lock"]

    def test_is_refused_when_its_tree_differs(self, index, dest, monkeypatch):
        # As if upstream's ids were others.
        trees = json.loads(json.dumps(fetch.SOURCE["trees"]))
        trees["include"] = "0" * 40
        monkeypatch.setitem(fetch.SOURCE, "trees", trees)
        monkeypatch.setitem(fetch.LISTED, "include/caffe/net.hpp", "100644 " + "1" * 40)
        with pytest.raises(Failure, match=r"include/caffe/net\.hpp: got 100644 "):
            fetch.fetch(None, dest)
        assert not dest.exists()

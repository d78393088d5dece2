"""scripts/install_packages.py, on stand-ins for dpkg, apt and sudo that log how they are called."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_program import shell

import _mirrors
import install_packages
from _common import Failure

ROOT = Path(__file__).resolve().parent.parent

LISTS = sorted((ROOT / "scripts" / "packages").glob("*.txt"))


class Machine:
    """A folder that is all of PATH, a log of the commands run from it, and what is installed."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.log_file = folder / "log"
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("DEPS", raising=False)
        for name in ("env", "grep", "sleep"):
            (folder / name).symlink_to(f"/usr/bin/{name}")
        # dpkg-query also names what was removed but left its configuration.
        self.program("dpkg-query", 'echo "g++ installed"; echo "cmake config-files"; exit 1')
        self.program("dpkg", "")
        self.program("apt-get", "")
        self.user(0)

    def program(self, name, body):
        shell(self.folder / name, f"echo {name} $* >> {self.log_file}\n{body}")

    def user(self, number):
        self.monkeypatch.setattr(os, "geteuid", lambda: number)

    def install(self):
        install_packages.install(install_packages.missing(["g++", "cmake", "git"]))

    def calls(self, program):
        lines = self.log_file.read_text().splitlines()
        return [line for line in lines if line.startswith(program + " ")]

    def changes(self):
        """What apt-get was asked to do, without the simulations."""
        calls = [line for line in self.calls("apt-get") if "--simulate" not in line]
        calls = [line for line in calls if "--print-uris" not in line]
        return ["update" if " update" in line else "install" for line in calls]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_installs_what_is_missing_and_says_which(machine, capfd):
    machine.install()
    assert "missing: cmake git\n" in capfd.readouterr().out
    assert machine.changes() == ["install"]
    assert machine.calls("apt-get")[-1].endswith("--yes --no-install-recommends cmake git")


def test_does_nothing_where_all_is_there(machine, capfd):
    machine.program("dpkg-query", 'printf "g++ installed\\ncmake installed\\ngit installed\\n"')
    machine.install()
    assert machine.calls("apt-get") == []
    assert capfd.readouterr().out == ""


def test_updates_the_lists_first_where_apt_knows_no_such_package(machine):
    machine.program("apt-get", 'echo "$*" | grep -q -- --simulate && exit 100; exit 0')
    machine.install()
    assert machine.changes() == ["update", "install"]


def test_updates_and_tries_again_where_the_download_fails(machine):
    """The lists are there, but the versions that they name have left the mirror."""
    updated = machine.folder / "updated"
    machine.program(
        "apt-get",
        f"""case "$*" in
*--simulate*|*--print-uris) ;; *update*) echo > {updated};; *) [ -e {updated} ];; esac""",
    )
    machine.install()
    assert machine.changes() == ["install", "update", "install"]


def test_finishes_first_what_was_cut_short(machine):
    """apt-get refuses all work until dpkg has."""
    configured = machine.folder / "configured"
    machine.program("dpkg", f"echo > {configured}")
    machine.program("apt-get", f'case "$*" in *--simulate*) ;; *) [ -e {configured} ];; esac')
    machine.install()
    assert machine.calls("dpkg") == ["dpkg --configure -a"]
    assert machine.changes() == ["install", "update", "install"]


def test_interrupted_it_waits_for_dpkg(machine):
    """Ctrl-C reaches apt-get as well, which ends where it may; killed, it would leave a mess."""
    machine.program(
        "apt-get",
        f"""\
case "$*" in *--simulate*|*--print-uris*) exit ;; esac
trap 'sleep 1; echo done >> {machine.log_file}; exit 1' INT
echo working >> {machine.log_file}
while :; do sleep 0.1; done""",
    )
    machine.log_file.touch()
    argv = [sys.executable, ROOT / "scripts" / "install_packages.py", "test"]
    options = {
        "start_new_session": True,
        "stderr": subprocess.PIPE,
        # A shell's background jobs, and what they start, ignore SIGINT.
        "preexec_fn": functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen(argv, **options) as running:
        while "working" not in machine.log_file.read_text().split():
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        assert b"interrupted; run it again" in running.stderr.read()
    assert running.returncode == 130
    assert machine.log_file.read_text().split()[-1] == "done"


def test_mirrors_that_never_answer_are_not_waited_for(machine, hung, monkeypatch):
    monkeypatch.setattr(_mirrors, "PATIENCE", 1)
    machine.program("apt-get", f"echo \"'{hung}/debian/dists/sid/InRelease' list 0\"")
    with pytest.raises(Failure, match="no mirror answered in 1 s; look at the network"):
        machine.install()
    assert machine.changes() == []


def test_one_mirror_that_answers_is_enough(machine, hung, monkeypatch):
    monkeypatch.setattr(_mirrors, "PATIENCE", 1)
    (machine.folder / "InRelease").touch()
    uris = f"'{hung}/a/InRelease' a 0\n'file:{machine.folder}/InRelease' b 0"
    machine.program("apt-get", f'printf "{uris}"')
    machine.install()
    assert machine.changes() == ["install"]


def test_uses_sudo_where_it_is_not_root(machine):
    machine.user(1000)
    machine.program("sudo", 'exec "$@"')
    machine.install()
    assert machine.changes() == ["install"]
    assert machine.calls("sudo")[-1].endswith("cmake git")


def test_tells_the_administrator_what_to_run(machine):
    machine.user(1000)
    by_hand = "administrator .* apt-get install --yes --no-install-recommends cmake git$"
    with pytest.raises(Failure, match=by_hand) as stop:
        machine.install()
    assert stop.value.status == 1
    assert machine.changes() == []


def test_says_in_one_line_that_apt_failed(machine, capfd):
    machine.program("apt-get", "exit 100")
    with pytest.raises(Failure, match="apt-get failed") as stop:
        machine.install()
    assert stop.value.status == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [0, 1000])
def test_goes_on_without_what_is_optional(machine, monkeypatch, capfd, number):
    """Where apt fails, and where there is neither root nor sudo."""
    machine.user(number)
    machine.program("apt-get", "exit 100")
    monkeypatch.setattr(sys, "argv", ["install_packages.py", "--optional", "parity"])
    install_packages.main()
    *_, line = capfd.readouterr().out.splitlines()
    assert "continuing without" in line
    assert line.endswith("apt-get install --yes --no-install-recommends python3-torch")


def test_installs_what_is_optional(machine, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["install_packages.py", "--optional", "parity"])
    install_packages.main()
    assert machine.calls("apt-get")[-1].endswith("--no-install-recommends python3-torch")
    assert "continuing without" not in capfd.readouterr().out


def test_says_that_this_is_no_debian(machine):
    (machine.folder / "dpkg-query").unlink()
    with pytest.raises(Failure, match="DEPS=off") as stop:
        machine.install()
    assert stop.value.status == 1


def test_deps_off_turns_it_off(machine, monkeypatch):
    monkeypatch.setenv("DEPS", "off")
    monkeypatch.setattr(sys, "argv", ["install_packages.py", "build", "test"])
    install_packages.main()
    assert not machine.log_file.exists()


def test_asks_dpkg_about_every_list(machine, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["install_packages.py", *(path.stem for path in LISTS)])
    install_packages.main()
    asked = machine.calls("dpkg-query")[0].split()
    assert {"g++", "dataset-fashion-mnist", "python3-pytest"} <= set(asked)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_name_packages_of_any_debian(path):
    """A name with a version in it (python3.11-dev, libboost1.74-dev) is in one release only."""
    names = install_packages.read_list(path.stem)
    assert names
    assert len(names) == len(set(names))
    for name in names:
        assert re.fullmatch(r"[a-z0-9][a-z0-9+-]+", name)

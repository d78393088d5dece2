"""A source tree that files are put into and taken out of again, to the byte. Python 3.6."""

import hashlib
import json
import os
import shutil

from _common import Failure, write_atomic

STATE = ".sigmoid_cross_entropy_weight_loss"
FORMAT = 1


def refused(why):
    """The tree, or what was asked, does not allow it: it is left as it is."""
    return Failure(why, 2)


def digest(data):
    return None if data is None else hashlib.sha256(data).hexdigest()


class AppliedTree:
    """A tree and, if we were here before, our record of it in the folder STATE.

    The record is manifest.json, and under original/ the former bytes of the files that we changed.
    For each file of ours the manifest has the digest of the original (null: there was no file) and
    of what we wrote: one digest at rest, two while an update is under way. It is written before the
    first file and again after the last, so whatever stops the program, each file has one of the
    digests in the manifest, unless somebody else edited it.
    """

    def __init__(self, root):
        self.root = root
        self.state = root / STATE
        self.manifest = self._read_manifest()

    def _read_manifest(self):
        path = self.state / "manifest.json"
        if not path.exists():
            return {"format": FORMAT, "files": {}, "folders": []}
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["format"] == FORMAT:
                return manifest
        except (ValueError, KeyError, TypeError):
            pass
        raise refused(f"{path} is damaged, or another version's")

    @property
    def files(self):
        return self.manifest["files"]

    def current(self, path):
        """The bytes now, None where there is no file."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def original(self, path):
        """The bytes before us, None where there was no file."""
        if path not in self.files:
            return self.current(path)
        wanted = self.files[path]["original"]
        if wanted is None:
            return None
        kept = self.state / "original" / path
        if not kept.is_file() or digest(kept.read_bytes()) != wanted:
            raise refused(f"{kept} is damaged: it should be {path} as it was before")
        return kept.read_bytes()

    def check_not_edited(self):
        for path, entry in sorted(self.files.items()):
            if digest(self.current(path)) not in [entry["original"]] + entry["written"]:
                raise refused(
                    f"{self.root / path} was edited after it was applied: save the edit elsewhere "
                    "(apply.py TREE --check shows it), undo it, and run this again"
                )

    def changes(self, wanted):
        """(path, bytes now, bytes then) of each file that is to change; None stands for no file.

        WANTED is {path: bytes}. What is in it no more goes back to its original.
        """
        found = []
        for path in sorted(set(wanted) | set(self.files)):
            now = self.current(path)
            then = wanted[path] if path in wanted else self.original(path)
            if now != then:
                self._check_no_link(path)
                found.append((path, now, then))
        return found

    def _check_no_link(self, path):
        """What a link leads to may be another tree's, too."""
        full = self.root / path
        links = (one for one in [full, *full.parents] if one.is_symlink())
        for link in links:
            if self.root in link.parents:
                raise refused(f"{link} is a symbolic link: left as it is")

    def _check_writable(self, changes):
        """Find out before the first change, not after it."""
        for path, _, _ in [(STATE, None, None), *changes]:
            folder = next(one for one in (self.root / path).parents if one.exists())
            if not os.access(str(folder), os.W_OK):
                raise refused(f"{folder} cannot be written to: left as it is")

    def make(self, wanted):
        """Bring the tree to WANTED; each file that differs is written at once or not at all."""
        changes = self.changes(wanted)
        self._check_writable(changes)
        if wanted:
            self._record(wanted, under_way=True)
        for path, _, then in changes:
            self._place(path, then)
        if wanted:
            self._record(wanted, under_way=False)
        else:
            self._forget()

    def _record(self, wanted, under_way):
        """Write the record: what an update under way may find, or only what it leaves."""
        files = dict(self.files) if under_way else {}
        for path, data in wanted.items():
            known = self.files.get(path) or self._keep_original(path)
            written = set(known["written"]) if under_way else set()
            files[path] = {
                "original": known["original"],
                "written": sorted(written | {digest(data)}),
            }
        folders = sorted(set(self.manifest["folders"]) | self._missing_folders(wanted))
        manifest = {"format": FORMAT, "files": files, "folders": folders}
        if manifest != self.manifest:
            text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
            write_atomic(self.state / "manifest.json", text.encode())
            self.manifest = manifest

    def _keep_original(self, path):
        data = self.current(path)
        kept = self.state / "original" / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            kept.write_bytes(data)
        return {"original": digest(data), "written": []}

    def _missing_folders(self, wanted):
        above = {parent for path in wanted for parent in (self.root / path).parents}
        missing = (folder for folder in above if not folder.exists())
        return {folder.relative_to(self.root).as_posix() for folder in missing}

    def _place(self, path, data):
        """Replace, create or (None) delete a file. Begun in STATE, so that no leftover stays."""
        target = self.root / path
        if data is None:
            target.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data, folder=self.state)

    def _forget(self):
        """The files are the originals again: take away our folders, the record last."""
        for folder in sorted(self.manifest["folders"], reverse=True):
            path = self.root / folder
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if (self.state / "manifest.json").exists():
            (self.state / "manifest.json").unlink()
        if self.state.is_dir():
            shutil.rmtree(str(self.state))

"""The built Caffe that the examples run: its program, its pycaffe and its library."""

import hashlib
import os
import sys
from pathlib import Path

from errors import DemoError


class CaffeInstall:
    """An install tree as `make TARGET` leaves it: bin/, lib/, python/."""

    def __init__(self, folder, target="demo"):
        self.folder = Path(folder).resolve()
        self.program = self.folder / "bin" / "caffe"
        for part in (self.program, self.folder / "python" / "caffe" / "_caffe.so"):
            if not part.is_file():
                raise DemoError(f"no built Caffe: {part} is missing; run `make {target}`", status=2)

    def library_digest(self):
        """Of libcaffe: another library may train another model."""
        (library,) = {path.resolve() for path in (self.folder / "lib").glob("libcaffe.so*")}
        return hashlib.sha256(library.read_bytes()).hexdigest()

    def pycaffe(self):
        """Import this install's pycaffe, without its log on the screen."""
        os.environ.setdefault("GLOG_minloglevel", "2")
        python = str(self.folder / "python")
        if python not in sys.path:
            sys.path.insert(0, python)
        import caffe

        return caffe

#!/usr/bin/python3
"""Build the Dockerfile's image on a bare Debian, and train in it as its user.

The base is made with debootstrap, so that no registry of images is asked. buildah works by chroot,
which takes root and nothing else, and keeps everything in build/container.
"""

import argparse
import os
import shutil

from _common import ROOT, first_line, output, program, run

FOLDER = ROOT / "build" / "container"
BUILDAH = ["buildah", "--root", FOLDER / "storage", "--runroot", FOLDER / "run"]
BASE, IMAGE = "localhost/base", "localhost/caffe-weighted"
NET = """\
layer { name: "data" type: "DummyData" top: "data" top: "targets" dummy_data_param {
  shape { dim: 4 dim: 3 }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SigmoidCrossEntropyWeightLoss" bottom: "fc" bottom: "targets"
  sigmoid_cross_entropy_weight_loss_param { cls_weight: 100 } }
"""
SOLVER = """\
net: "/work/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 5 solver_mode: CPU
snapshot_prefix: "last"
"""
# What a shell in the image must be able to do.
CHECKS = {
    "the user is not root": "test $(id -u) -ne 0",
    "caffe trains": "caffe train --solver=/work/solver.prototxt",
    "pycaffe runs": """python3 -c 'import caffe; caffe.Net("/work/net.prototxt", caffe.TRAIN)'""",
    "the tools run": "weighted-loss --help",
    "what built it is not there": "! command -v cmake ninja protoc && ! test -e /source",
}


def buildah(*words):
    """Run it; return what it prints, the name of a container for instance."""
    return output([*BUILDAH, *words]).strip()


def make_base(suite):
    system = FOLDER / suite
    whole = FOLDER / f"{suite}.whole"
    if not whole.exists():
        shutil.rmtree(system, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", suite, system])
        whole.touch()
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, system, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)


def failures():
    """What of the image is not as it must be."""
    work = FOLDER / "work"
    work.mkdir(exist_ok=True)
    (work / "net.prototxt").write_text(NET)
    (work / "solver.prototxt").write_text(SOLVER)
    container = buildah("from", "--pull-never", IMAGE)
    if buildah("inspect", "--format", "{{.OCIv1.Config.Entrypoint}}", container) != "[caffe]":
        yield "its entry is caffe"
    in_it = [*BUILDAH, "run", "--volume", f"{work}:/work:ro", container, "--", "sh", "-c"]
    for what, line in CHECKS.items():
        # Caffe leaves its snapshots where it runs.
        if run([*in_it, f"cd && {line}"], check=False).returncode:
            yield what
    buildah("rm", container)


def main():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--suite", default="bookworm", help="the Debian (%(default)s)")
    suite = parser.parse_args().suite
    os.environ["BUILDAH_ISOLATION"] = "chroot"
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_base(suite)
    run([*BUILDAH, "build", "--build-arg", f"BASE={BASE}", "--tag", IMAGE, ROOT])
    failed = list(failures())
    print(f"container: on {suite}:", *(failed or ["ok"]), sep="\n  " if failed else " ")
    return 1 if failed else 0


if __name__ == "__main__":
    program(main)

"""Large inputs, which take several threads: right, the same bits for any number of threads, no
memory beyond the blobs, and not stuck after a fork. Each run is a process of its own, since
OMP_NUM_THREADS is read once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# Shapes of 131,072 elements, from which threads are taken, to 500,000, where all of seven are, with
# ends that fill no block or part, and every way in which an element gets its constants.
CASES = {
    "plain": ((378, 1237), "cls_weight: 100", None),
    "a weight per channel": ((5003, 35), "cls_weight: {c} neg_weight: {c}", None),
    "many channels": ((97, 1801), "cls_weight: {c}", None),
    "a weight a plane": ((7, 12, 57, 59), "cls_weight: {c} neg_weight: 1.5", None),
    "BATCH": ((3, 1, 301, 307), "class_balance: BATCH", None),
    "INSTANCE": ((1301, 1, 13, 11), "class_balance: INSTANCE", None),
    "few instances": ((3, 2, 177, 191), "class_balance: INSTANCE cls_weight: 2", None),
    "CHANNEL": ((11201, 41), "class_balance: CHANNEL cls_weight: {c}", None),
    "CHANNEL, many": ((79, 1703), "class_balance: CHANNEL", None),
    "CHANNEL of planes": ((19, 5, 37, 41), "class_balance: CHANNEL", None),
    "CHANNEL of large planes": ((3, 300, 19, 29), "class_balance: CHANNEL", None),
    "INSTANCE_CHANNEL": ((301, 9, 13, 11), "class_balance: INSTANCE_CHANNEL", None),
    "INSTANCE_CHANNEL, axis 2": ((3, 97, 5, 401), "class_balance: INSTANCE_CHANNEL axis: 2", None),
    "hard targets": ((7, 3, 201, 101), "class_balance: CHANNEL ignore_soft_targets: true", None),
    "a weight per element": ((467, 997), "cls_weight: 3", (467, 997)),
    "a weight per pixel": ((5, 3, 101, 103), "cls_weight: {c}", (5, 1, 101, 103)),
    "a weight per instance": ((999, 31, 7), "class_balance: CHANNEL", (999,)),
    "a weight per channel's pixel": ((5, 43, 29, 31), "class_balance: BATCH", (1, 43, 29, 31)),
}
PROGRAM = """
import hashlib, json, sys
import numpy as np
from one_layer import check
from test_threads import CASES, problem

digests = {}
for name in CASES:
    loss, grad = check(*problem(name))
    digests[name] = hashlib.sha256(np.float64(loss).tobytes() + grad.tobytes()).hexdigest()
print(json.dumps(digests))
"""
MEMORY = """
import resource, sys
import numpy as np
from one_layer import Layer, parse_layer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

shape = (16, 4, 256, 256)
random = np.random.default_rng(1)
scores = random.normal(size=shape).astype(np.float32)
targets = (random.random(shape) < 0.01).astype(np.float32)
layer = Layer(parse_layer(sys.argv[1]))
layer.run(scores[:1], targets[:1], targets[:1])  # what is allocated once
net = layer.net
for name, value in ("scores", scores), ("targets", targets), ("weight", targets):
    net.blobs[name].reshape(*shape)
    net.blobs[name].data[...] = value
net.blobs["scores"].diff[...] = 1
before = peak()
net.forward()
net.backward()
print(peak() - before)
"""
# Of a net with a product of matrices, for which OpenBLAS has threads, too.
FORK = """
import os, signal, sys
import numpy as np
import caffe

net = caffe.Net(sys.argv[1], caffe.TRAIN)
random = np.random.default_rng(1)
for name in "data", "targets":
    net.blobs[name].data[...] = random.random(net.blobs[name].shape) < 0.1
net.params["scores"][0].data[...] = random.normal(size=(512, 512))

def step():
    net.forward()
    net.backward()
    return net.blobs["loss"].data.tobytes().hex()

step()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os.write(1, step().encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print()
print(step())
"""
NET = """
layer { name: "data" type: "Input" top: "data" top: "targets"
  input_param { shape { dim: 1000 dim: 512 } } }
layer { name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 512 } }
layer { name: "loss" type: "SigmoidCrossEntropyWeightLoss" bottom: "scores" bottom: "targets"
  top: "loss" sigmoid_cross_entropy_weight_loss_param { cls_weight: 10 } }
"""


def problem(name):
    """The arguments of one_layer.check() for a case."""
    import numpy as np

    shape, own, weight_shape = CASES[name]
    random = np.random.default_rng(list(map(ord, name)))
    scores = random.normal(scale=3, size=shape).astype(np.float32)
    # Rare ones, as this loss is for, soft targets, and some that do not count.
    targets = (random.random(shape) < 0.03).astype(np.float32)
    soft = random.random(shape) < 0.1
    targets[soft] = random.random(np.count_nonzero(soft))
    targets[random.random(shape) < 0.02] = 255
    weight = random.random(weight_shape).astype(np.float32) if weight_shape else None
    own = own.replace("{c}", str([1 + c % 5 for c in range(shape[1])]))
    own = f"sigmoid_cross_entropy_weight_loss_param {{ {own} }}"
    return f"{own} loss_param {{ ignore_label: 255 }}", scores, targets, weight


def run(program, *arguments, threads=None):
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    argv = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(argv, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_bits_for_any_number_of_threads():
    results = [json.loads(run(PROGRAM, threads=threads)) for threads in (1, 2, 7)]
    assert sorted(results[0]) == sorted(CASES)
    assert results[1] == results[0]
    assert results[2] == results[0]


@pytest.mark.parametrize("balance", ["NONE", "BATCH", "INSTANCE", "CHANNEL", "INSTANCE_CHANNEL"])
def test_memory_does_not_grow_with_the_input(balance):
    text = "sigmoid_cross_entropy_weight_loss_param { cls_weight: [1, 2, 3, 4] class_balance: %s }"
    # 16 MiB per blob; a scratch of one byte per element would be 4 MiB.
    assert int(run(MEMORY, text % balance)) < 2 << 20


@pytest.mark.parametrize("threads", [None, 2])
def test_net_in_a_forked_child_is_not_stuck(threads, tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text(NET)
    child, parent = run(FORK, net, threads=threads).splitlines()
    assert child == parent

"""The nets that are compared: with class_balance and without, and nothing else changed."""

from pathlib import Path

from google.protobuf import text_format

from ..trainer import read_prototxt, solver_prototxt

HERE = Path(__file__).resolve().parent
UNBALANCED, BALANCED = "unbalanced", "balanced"
TITLES = {UNBALANCED: "unbalanced", BALANCED: "class_balance: INSTANCE"}


def read_solver(pb):
    return read_prototxt(HERE / "solver.prototxt", pb.SolverParameter())


def net_prototxt(pb, run):
    net = read_prototxt(HERE / "net.prototxt", pb.NetParameter())
    for layer in net.layer:
        if layer.type == "HDF5Data":
            layer.hdf5_data_param.source = f"data/train-seed{run.seed}.txt"
        if layer.type == "SigmoidCrossEntropyWeightLoss" and run.scheme == UNBALANCED:
            layer.sigmoid_cross_entropy_weight_loss_param.ClearField("class_balance")
    return text_format.MessageToString(net)


def prototxts(pb, run, iterations):
    """{file name: text} of a run."""
    return {
        "net.prototxt": net_prototxt(pb, run),
        "solver.prototxt": solver_prototxt(read_solver(pb), run, iterations),
    }

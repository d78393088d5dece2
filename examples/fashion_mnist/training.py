"""The demo's prototxts, with each run's own settings filled in."""

from pathlib import Path

from google.protobuf import text_format

from .. import trainer
from .schemes import class_weights

HERE = Path(__file__).resolve().parent


def read_prototxt(name, message):
    return trainer.read_prototxt(HERE / name, message)


def max_iterations(pb):
    return read_prototxt("solver.prototxt", pb.SolverParameter()).max_iter


def net_prototxt(pb, run, counts):
    """net.prototxt with the run's training file and class weights."""
    net = read_prototxt("net.prototxt", pb.NetParameter())
    for layer in net.layer:
        if layer.type == "HDF5Data" and layer.include[0].phase == pb.TRAIN:
            layer.hdf5_data_param.source = f"data/train-seed{run.seed}.txt"
        if layer.type == "SigmoidCrossEntropyWeightLoss":
            parameter = layer.sigmoid_cross_entropy_weight_loss_param
            parameter.cls_weight[:] = class_weights(run.scheme, counts)
    return text_format.MessageToString(net)


def prototxts(pb, run, counts, iterations):
    """{file name: text} of a run."""
    solver = read_prototxt("solver.prototxt", pb.SolverParameter())
    return {
        "net.prototxt": net_prototxt(pb, run, counts),
        "solver.prototxt": trainer.solver_prototxt(solver, run, iterations),
    }

"""The documents against the code: prototxts run, tables and figures are right, names exist."""

import re
import sys
import unicodedata

import caffe
import h5py
import numpy as np
import pytest
from caffe import layers
from caffe.proto import caffe_pb2
from documents import ROOT, blocks, read
from google.protobuf import text_format

from weighted_loss_tools import __main__ as tools
from weighted_loss_tools.class_weights import SCHEMES

READMES = ["README.md", "README.zh-CN.md"]
DERIVATIONS = ["docs/derivation.md", "docs/derivation.zh-CN.md"]
FORKS = ["docs/forks.md", "docs/forks.zh-CN.md"]
LAYERS = ["docs/layer.md", "docs/layer.zh-CN.md"]
RECIPES = ["docs/recipes.md", "docs/recipes.zh-CN.md"]
TOOLS = ["docs/tools.md", "docs/tools.zh-CN.md"]
TROUBLES = ["docs/troubleshooting.md", "docs/troubleshooting.zh-CN.md"]
PYTHON = ["docs/python.md", "docs/python.zh-CN.md"]
TRANSLATED = [READMES, DERIVATIONS, FORKS, LAYERS, PYTHON, RECIPES, TOOLS, TROUBLES]
DOCUMENTS = [
    *READMES,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
]
PARAMETER = caffe_pb2.SigmoidCrossEntropyWeightLossParameter.DESCRIPTOR
TYPE = "SigmoidCrossEntropyWeightLoss"
# "none" and what the Chinese documents have for it.
NONE = {"none", "\u65e0"}
QUANTITIES = {
    "gradient": "gradient",
    "loss": "loss",
    "\u68af\u5ea6": "gradient",
    "\u635f\u5931": "loss",
}


def code(document):
    """Everything in a document that is set as code, a piece each."""
    text = read(document)
    fenced = blocks(document)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", prose)
    return [line for block in fenced for line in block.splitlines()] + [
        " ".join(span.split()) for span in spans
    ]


def prose(document):
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)


def uncoded(cell):
    """A cell that is one piece of code, without its backquotes."""
    return re.sub(r"^`([^`]*)`$", r"\1", cell)


def tables(document):
    """Every table as its rows of cells, without the head."""
    found = []
    for table in re.findall(r"(?:^\|.*\|$\n?)+", prose(document), re.MULTILINE):
        rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
        found.append([[uncoded(cell.strip()) for cell in row] for row in rows])
    return found


def table_with(document, first_cell):
    (found,) = (rows for rows in tables(document) if first_cell in (row[0] for row in rows))
    return found


def headings(document):
    return re.findall(r"^(#+) (.*)$", prose(document), re.MULTILINE)


def anchor(heading):
    """What GitHub makes of a heading."""
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


# Prototxts


def parse(text):
    return text_format.Parse(text, caffe_pb2.NetParameter())


PROTOTXTS = [
    pytest.param(text, id=f"{document}-{number}")
    for document in DOCUMENTS
    if document not in RECIPES  # whole nets, with data of their own: test_recipes.py
    for number, text in enumerate(blocks(document, "prototxt"))
]


def load(net, folder):
    """The net with an Input layer for every bottom that it lacks; one channel a weight."""
    weights = max(
        len(layer.sigmoid_cross_entropy_weight_loss_param.cls_weight) for layer in net.layer
    )
    whole = caffe_pb2.NetParameter(force_backward=True)
    made = {top for layer in net.layer for top in layer.top}
    for name in dict.fromkeys(name for layer in net.layer for name in layer.bottom):
        if name not in made:
            layer = whole.layer.add(name=name, type="Input", top=[name])
            layer.input_param.shape.add(dim=[4, weights if weights > 1 else 3, 5, 5])
    whole.MergeFrom(net)
    path = folder / "net.prototxt"
    path.write_text(text_format.MessageToString(whole))
    return caffe.Net(str(path), caffe.TRAIN)


def run(net):
    """Train a step on random input; return the loss and the scores' gradient."""
    random = np.random.default_rng(20181227)
    scores, targets, *weights = (net.blobs[name] for name in net.bottom_names["loss"])
    scores.data[...] = random.normal(scale=3, size=scores.data.shape)
    targets.data[...] = random.random(targets.data.shape) < 0.2
    for blob in weights:
        blob.data[...] = random.uniform(0.5, 2, size=blob.data.shape)
    net.forward()
    net.backward()
    return net.blobs["loss"].data.item(), scores.diff.copy()


@pytest.fixture
def article_layer(monkeypatch):
    """python/ where Caffe looks for the modules of Python layers."""
    monkeypatch.syspath_prepend(str(ROOT / "python"))


def test_documents_have_prototxts():
    assert len(PROTOTXTS) >= 8


@pytest.mark.usefixtures("article_layer")
@pytest.mark.parametrize("text", PROTOTXTS)
def test_prototxt_trains(text, tmp_path):
    loss, gradient = run(load(parse(text), tmp_path))
    assert np.isfinite(loss) and loss > 0
    assert np.all(np.isfinite(gradient)) and np.all(gradient != 0)


@pytest.mark.usefixtures("article_layer")
@pytest.mark.parametrize("document", LAYERS)
def test_native_layer_computes_what_the_articles_does(document, tmp_path):
    nets = [parse(text) for text in blocks(document, "prototxt")]
    (old,) = (i for i, net in enumerate(nets) if net.layer[0].type == "Python")
    assert nets[old - 1].layer[0].type == TYPE
    new_loss, new_gradient = run(load(nets[old - 1], tmp_path))
    old_loss, old_gradient = run(load(nets[old], tmp_path))
    assert new_loss == pytest.approx(old_loss, rel=1e-6)
    np.testing.assert_allclose(new_gradient, old_gradient, rtol=1e-6)


@pytest.mark.parametrize("document", READMES)
def test_netspec_makes_the_layer(document):
    (call,) = re.findall(r"`L\.(\w+\(.*?\))`", prose(document))
    scores, targets = layers.DummyData(ntop=2)
    made = eval(f"layers.{call}", {"layers": layers, "scores": scores, "targets": targets})
    layer = made.to_proto().layer[-1]
    assert layer.type == TYPE
    assert layer.sigmoid_cross_entropy_weight_loss_param.cls_weight == [1, 12.5, 80]


# Tables of parameters


def type_name(field):
    names = {
        field.TYPE_FLOAT: "float",
        field.TYPE_INT32: "int32",
        field.TYPE_BOOL: "bool",
        field.TYPE_ENUM: "enum",
    }
    repeated = "repeated " if field.label == field.LABEL_REPEATED else ""
    return repeated + names[field.type]


def default_text(field):
    if field.label == field.LABEL_REPEATED:
        return "none"
    if field.type == field.TYPE_ENUM:
        return field.enum_type.values_by_number[field.default_value].name
    return (
        str(field.default_value).lower()
        if field.type == field.TYPE_BOOL
        else str(field.default_value)
    )


@pytest.mark.parametrize("document", READMES)
def test_table_of_parameters_is_the_message(document):
    rows = [
        (name, type_, "none" if default in NONE else default)
        for name, type_, default, _ in table_with(document, "cls_weight")
    ]
    assert rows == [(f.name, type_name(f), default_text(f)) for f in PARAMETER.fields]


@pytest.mark.parametrize("document", READMES)
def test_table_of_parameters_names_every_value(document):
    meanings = {row[0]: row[3] for row in table_with(document, "cls_weight")}
    for field in PARAMETER.fields:
        for value in field.enum_type.values if field.enum_type else ():
            is_default = value.number == field.default_value
            assert is_default or f"`{value.name}`" in meanings[field.name]


@pytest.mark.parametrize("document", LAYERS)
def test_table_of_caffes_fields(document, tmp_path):
    """The fields exist, and setting one to the default that the table says changes nothing."""
    text = blocks(READMES[0], "prototxt")[0]
    expected, _ = run(load(parse(text), tmp_path))
    for name, default, _ in table_with(document, "loss_weight"):
        net = parse(text)
        of_layer = name in net.layer[0].DESCRIPTOR.fields_by_name
        message = net.layer[0] if of_layer else net.layer[0].loss_param
        assert name in message.DESCRIPTOR.fields_by_name
        if default not in NONE:
            text_format.Merge(f"{name}: {default}", message)
            assert run(load(net, tmp_path))[0] == expected


# Figures


def textbook(score, target, weight):
    """The article's arithmetic, in float32: loss, gradient."""
    x, t, one = np.array([score], "f"), np.array([target], "f"), np.float32(1)
    with np.errstate(over="ignore"):
        loss = (one - t) * x + ((weight - 1) * t + one) * np.log(one + np.exp(-x))
        sigmoid = one / (one + np.exp(-x))
    gradient = ((weight - 1) * t + one) * sigmoid - weight * t
    assert loss.dtype == gradient.dtype == np.float32
    return {"loss": loss[0], "gradient": gradient[0]}


def exact(score, target, weight):
    u = np.exp(-abs(score))
    a, b = weight * target, 1 - target
    loss = a * max(-score, 0) + b * max(score, 0) + (a + b) * np.log1p(u)
    small, large = u / (1 + u), 1 / (1 + u)
    positive, negative = (small, large) if score > 0 else (large, small)
    return {"loss": loss, "gradient": b * negative - a * positive}


@pytest.mark.parametrize("document", DERIVATIONS)
def test_figures_of_the_textbook_form(document):
    weight = 100
    rows = table_with(document, "-89")
    assert len(rows) == 9
    for score, target, quantity, got, right in rows:
        name, x, t = QUANTITIES[quantity], float(score), float(target)
        assert float(right) == pytest.approx(exact(x, t, weight)[name], rel=1e-3)
        # exp may differ by an ulp between processors: one of the numbers that are subtracted.
        size = weight if name == "gradient" else max(abs(x), 1) * (weight if t else 1)
        value = textbook(x, t, weight)[name]
        ulp = np.spacing(np.float32(size)) if np.isfinite(value) else 0
        assert float(got) == pytest.approx(value, rel=1e-3, abs=ulp)


@pytest.mark.parametrize("document", DERIVATIONS)
def test_bounds_are_those_of_the_code(document):
    header = read("include/caffe/util/weighted_sigmoid_loss_math.hpp")
    rows = table_with(document, "Log1p")
    assert len(rows) == 4
    for function, bound in rows:
        definitions = list(re.finditer(rf"HOST_DEVICE \w+ {function}\(", header))
        assert definitions
        for definition in definitions:
            stated = re.findall(r"[Ww]ithin ([\d.]+) ulp", header[: definition.start()])
            assert bound == stated[-1], function


@pytest.mark.parametrize("document", TOOLS)
def test_output_of_class_weights(document, tmp_path, monkeypatch, tools_command):
    """On labels with the counts of the demo's training set."""
    (shown,) = (text for text in blocks(document, "text") if "data/train-seed1.txt" in text)
    rows = re.findall(r"^ +\d+ +([\d,]+) ", shown, re.MULTILINE)
    classes = np.repeat(np.arange(len(rows)), [int(row.replace(",", "")) for row in rows])
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "train-seed1.h5", "w") as file:
        file["label"] = np.eye(len(rows), dtype=np.float32)[classes]
    (tmp_path / "data" / "train-seed1.txt").write_text("data/train-seed1.h5\n")
    monkeypatch.chdir(tmp_path)
    assert tools_command("class-weights", "data/train-seed1.txt") == (0, shown, "")


@pytest.mark.parametrize("document", TOOLS)
def test_loss_of_the_paper(document, tmp_path, monkeypatch):
    """Class-balanced sigmoid loss as its authors' code computes it, by the document's weights."""
    random = np.random.default_rng(20181227)
    scores, labels = random.normal(size=(40, 3)), random.choice(3, 40, p=[0.7, 0.2, 0.1])
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["scores"], file["label"] = scores.astype("f"), np.eye(3, dtype="f")[labels]
    monkeypatch.chdir(tmp_path)
    (script,) = blocks(document, "python")
    exec(script, {})
    (loss_layer,) = blocks(document, "prototxt")
    (tmp_path / "train.txt").write_text("train.h5\n")
    data = "".join(f"top: '{name}' " for name in ("scores", "label", "weight"))
    (tmp_path / "net.prototxt").write_text(
        f"layer {{ name: 'data' type: 'HDF5Data' {data} hdf5_data_param {{ source: 'train.txt' "
        f"batch_size: 40 }} }} {loss_layer}"
    )
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    effective = 1 - 0.999 ** np.bincount(labels)
    weights = (1 - 0.999) / effective
    weights = (weights / np.sum(weights) * 3)[labels][:, None]
    terms = np.logaddexp(0, scores) - np.eye(3)[labels] * scores
    assert net.forward()["loss"] == pytest.approx(np.sum(weights * terms) / 40, rel=1e-5)


@pytest.mark.parametrize("document", TOOLS)
def test_table_of_schemes_is_the_commands(document):
    rows = table_with(document, "ratio")
    assert {row[0].split("`")[1] if "`" in row[0] else row[0] for row in rows} == set(SCHEMES)


@pytest.mark.parametrize("document", [*READMES, *TOOLS])
def test_commands_of_the_tools_parse(document, monkeypatch):
    """Those in the code blocks: their names and options exist."""
    lines = "\n".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    commands = [without_comments(line)[0] for line in lines if "/weighted-loss " in line]
    assert commands
    for command in commands:
        arguments = command.split()
        monkeypatch.setattr(sys, "argv", arguments)
        assert tools.parse_arguments().command == arguments[1]


# Names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", prose(document)):
        if target.startswith("https:"):
            continue
        path, _, fragment = target.partition("#")
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), target
        if fragment:
            assert fragment in {anchor(text) for _, text in headings(linked)}, target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document):
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build"}
    # What is typed at a console may print the names of other trees' files.
    printed = {line for block in blocks(document, "console") for line in block.splitlines()}
    for text in code(document):
        if text in printed and not text.startswith("$ "):
            continue
        for word in text.split():
            if word.split("/")[0] in folders and "/" in word:
                assert (ROOT / word).exists(), word


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^# make ([A-Z_]+)=", makefile, re.MULTILINE))
    for text in code(document):
        for target in re.findall(r"^make ([a-z0-9-]+)", text):
            assert target in targets, text
        for variable in re.findall(r"(?<!-)\b([A-Z_]+)=[\w~/]+$", text):
            assert variable in variables, text


def test_every_make_target_is_in_a_document():
    documents = "\n".join(read(document) for document in DOCUMENTS)
    for target in re.findall(r"^([a-z0-9-]+):.*##", read("Makefile"), re.MULTILINE):
        assert target == "clean" or f"make {target}" in documents


def programs(folder):
    return {path.name for path in (ROOT / folder).glob("*.py") if path.name[0] != "_"}


def test_every_program_is_named():
    """With its make target and its options, those of devtools."""
    rows = table_with("CONTRIBUTING.md", "make lint")
    assert {row[1] for row in rows} == programs("devtools")
    target = None
    recipes = re.findall(r"^([a-z0-9-]+):.*##.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    for cell, name, _, options in rows:
        target = cell or target
        (recipe,) = [text for found, text in recipes if f"make {found}" == target]
        assert f"devtools/{name}" in recipe or name in read("devtools/lint.py"), name
        for option in re.findall("--[a-z]+", options):
            source = "scripts/build.py" if option == "--jobs" else f"devtools/{name}"
            assert f'"{option}"' in read(source), name
    others = {row[0] for row in table_with("CONTRIBUTING.md", "fetch.py")}
    assert others == programs("scripts")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_exist(document):
    for text in code(document):
        program = re.search(r"\bscripts/\w+\.py\b", text)
        for option in re.findall(r" (--[a-z-]+)", text) if program else ():
            assert f'"{option}"' in read(program[0]), text


@pytest.mark.parametrize("document", TROUBLES)
def test_messages_are_ours(document):
    sources = [
        path
        for folder in ("src", "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".cpp", ".py"}
    ]
    # Literals that continue on the next line are one.
    text = "".join(
        re.sub(r'"\s*(<<)?\s*f?"', "", path.read_text(encoding="utf-8")) for path in sources
    )
    for message, _ in table_with(document, "their counts must be equal"):
        assert message in text


# The two languages


def without_comments(block):
    return [line.partition("#")[0].rstrip() for line in block.splitlines()]


def shape(document):
    return [len(marks) for marks, _ in headings(document)]


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_languages_have_the_same_parts(english, chinese):
    assert shape(english) == shape(chinese)
    assert [len(rows) for rows in tables(english)] == [len(rows) for rows in tables(chinese)]
    pairs = zip(blocks(english, "prototxt"), blocks(chinese, "prototxt"))
    assert all(parse(one) == parse(other) for one, other in pairs)
    assert len(blocks(english, "prototxt")) == len(blocks(chinese, "prototxt"))
    for language in ("bash", "console", "python", "text"):
        one, other = blocks(english, language), blocks(chinese, language)
        assert [without_comments(b) for b in one] == [without_comments(b) for b in other]


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_languages_have_the_same_formulas_and_figures(english, chinese):
    formulas = [re.findall(r"^ {4}\S.*$", prose(d), re.MULTILINE) for d in (english, chinese)]
    assert formulas[0] == formulas[1]
    figures = [
        set(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?%?", prose(d).replace(",", "")))
        for d in (english, chinese)
    ]
    assert figures[0] == figures[1]

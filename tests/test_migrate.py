"""`weighted-loss migrate`: what it rewrites, what it keeps, what it refuses."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from weighted_loss_tools import __main__, migrate, text_spans
from weighted_sigmoid_loss.errors import Refused

ARTICLE = (Path(__file__).parent / "data" / "article.prototxt").read_bytes()
MIGRATED = b"""layer{
    name: "loss"
    type: "SigmoidCrossEntropyWeightLoss"
    bottom: "conv5"
    bottom: "label"
    top: "loss"
    sigmoid_cross_entropy_weight_loss_param{
        cls_weight: 100
        stop_on_nan: true
    }
    loss_param { normalization: NONE }
    include {
        phase: TRAIN
    }
    # set loss weight so Caffe knows this is a loss layer.
    # since PythonLayer inherits directly from Layer, this isn't automatically
    # known to Caffe
    loss_weight: 1
}
"""
NOTE = "layer 'loss': becomes SigmoidCrossEntropyWeightLoss, cls_weight 100"
NAME = "SigmoidCrossEntropyWeightLossLayer"


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(ARTICLE)
    return path


@pytest.fixture
def command(monkeypatch, capfdbinary):
    """Run the command in this process; return its exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["weighted-loss", "migrate", *map(str, arguments)])
        status = __main__.main()
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return run


def python_layer(param_str="\"{'cls_weight': 5}\"", more="loss_weight: 1", bottoms=2):
    """A layer of the article's on one line."""
    return (
        f"layer {{ name: 'loss' type: \"Python\" {'bottom: `x` ' * bottoms}top: 'loss' "
        f"python_param {{ module: '{NAME}' layer: '{NAME}' param_str: {param_str} }} {more} }}\n"
    ).replace("`", "'")


def native_layer(more="loss_weight: 1", cls_weight="5"):
    return (
        "layer { name: 'loss' type: \"SigmoidCrossEntropyWeightLoss\" bottom: 'x' bottom: 'x' "
        "top: 'loss' sigmoid_cross_entropy_weight_loss_param { "
        f"cls_weight: {cls_weight} stop_on_nan: true }} "
        f"loss_param {{ normalization: NONE }} {more} }}\n"
    )


def test_article(net, command):
    assert command(net) == (0, b"", f"{net}: {NOTE}\n")
    assert net.read_bytes() == MIGRATED


def test_migrated_file_is_left_alone(net, command):
    net.write_bytes(MIGRATED)
    before = net.stat()
    status, out, err = command(net)
    assert (status, out) == (0, b"")
    assert f"nothing to rewrite: no Python layer {NAME}.{NAME} (Python layers in it: none;" in err
    assert net.stat() == before
    assert command(net, "--check")[:2] == (0, b"")


def test_check_prints_a_patch(net, command):
    status, out, err = command(net, "--check")
    assert (status, err) == (1, f"{net}: {NOTE}\n")
    assert net.read_bytes() == ARTICLE
    subprocess.run(["patch", "--quiet", net], input=out, check=True)
    assert net.read_bytes() == MIGRATED


def test_check_without_a_last_line_end(net, command):
    net.write_bytes(ARTICLE[:-1])
    _, out, _ = command(net, "--check")
    subprocess.run(["patch", "--quiet", net], input=out, check=True)
    assert net.read_bytes() == MIGRATED[:-1]


def test_carriage_returns_are_kept(net, command):
    net.write_bytes(ARTICLE.replace(b"\n", b"\r\n"))
    assert command(net)[0] == 0
    assert net.read_bytes() == MIGRATED.replace(b"\n", b"\r\n")


def test_mode_and_link_are_kept(net, command):
    net.chmod(0o640)
    link = net.with_name("link.prototxt")
    link.symlink_to(net.name)
    assert command(link)[0] == 0
    assert link.is_symlink() and net.read_bytes() == MIGRATED
    assert net.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in net.parent.iterdir()) == [link.name, net.name]


def test_bytes_that_are_no_utf8(net, command):
    """A comment in GB 18030, and characters in it whose second byte is { or \\ or |."""
    comment = "# 权重 瘂瘄瘄 \n".encode("gb18030")
    text = comment + ARTICLE.replace(b"    # set", b"    " + comment + b"    # set")
    net.write_bytes(text)
    assert command(net)[0] == 0
    assert net.read_bytes() == comment + MIGRATED.replace(
        b"    # set", b"    " + comment + b"    # set"
    )


def test_names_in_messages(net, command):
    net.write_bytes(ARTICLE.replace(b'name: "loss"', 'name: "损失"'.encode()))
    assert "layer '损失': becomes" in command(net)[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (python_layer("'{\"cls_weight\": 5}'"), native_layer()),
        (python_layer('"{\\"cls_weight\\":5}"'), native_layer()),
        (python_layer("\"{'cls_\" 'weight\\': 5}'"), native_layer()),
        (python_layer("\"{'cls_weight': 0.1}\""), native_layer(cls_weight="0.1")),
        (python_layer("\"{'cls_weight': 1e-05}\""), native_layer(cls_weight="1e-05")),
        (python_layer("\"{'cls_weight': 16777217}\""), native_layer(cls_weight="16777217")),
        (
            python_layer(more="loss_weight: 1.0 include { phase: TRAIN } propagate_down: [1, 0]"),
            native_layer(more="loss_weight: 1.0 include { phase: TRAIN } propagate_down: [1, 0]"),
        ),
        (
            python_layer().replace("layer {", "layer: <").replace("1 }", "1 >"),
            native_layer().replace("layer {", "layer: <").replace("1 }", "1 >"),
        ),
        (
            python_layer().replace("' ", "', ").replace('" ', '"; '),
            native_layer().replace("' ", "', ").replace('" ', '"; ').replace("5 stop", "5; stop"),
        ),
    ],
    ids=["plain", "escapes", "two strings", "0.1", "1e-5", "2^24+1", "fields", "<>", "separators"],
)
def test_spellings(old, new):
    assert migrate.migrate(old)[0] == new


def test_comments_and_empty_lines_stay():
    old = f"""layer {{
  type: "Python"  # a Python layer
  bottom: "x" bottom: "t" top: "loss"
  python_param {{  # its code
    # is in
    module: "{NAME}"

    layer: "{NAME}"  # this class

    param_str: "{{'cls_weight': 7}}"  # rare positives: "7"
  }}  # end of python_param
  loss_weight: 1
}}
"""
    assert (
        migrate.migrate(old)[0]
        == """layer {
  type: "SigmoidCrossEntropyWeightLoss"  # a Python layer
  bottom: "x" bottom: "t" top: "loss"
  sigmoid_cross_entropy_weight_loss_param {  # its code
    # is in

    # this class

    cls_weight: 7  # rare positives: "7"
    stop_on_nan: true
  }  # end of python_param
  loss_param { normalization: NONE }
  loss_weight: 1
}
"""
    )


def test_several_layers_among_others():
    other = 'layer { name: "p" type: "Python" python_param { module: "m" layer: "l" } }\n'
    fake = '# layer { type: "Python" }\nname: "layer { type: \\"Python\\" }"\n'
    old = fake + python_layer() + other + python_layer("\"{'cls_weight': 6}\"")
    new, notes = migrate.migrate(old)
    assert new == fake + native_layer() + other + native_layer(cls_weight="6")
    assert [note[-1] for note in notes] == ["5", "6"]


def test_layers_in_a_list():
    def listed(layer):
        return f"layer: [{{ name: 'a' }}, {layer[len('layer ') :]}]"

    assert migrate.migrate(listed(python_layer()))[0] == listed(native_layer())


def test_other_names(net, command):
    net.write_bytes(ARTICLE.replace(NAME.encode(), b"Other"))
    status, _, err = command(net)
    assert status == 0 and "(Python layers in it: Other.Other;" in err
    status, _, err = command(net, "--module", "Other", "--layer", "Other")
    assert status == 0 and net.read_bytes() == MIGRATED


@pytest.mark.parametrize(
    ("field", "new_field", "warning"),
    [
        ("loss_weight: 0.5", "loss_weight: 1", "loss_weight was 0.5, which the article's layer"),
        ("loss_weight: [0.5]", "loss_weight: [1]", "write 0.5 again if it is to count"),
        ("loss_weight: 0", "loss_weight: 0", "loss_weight stays 0"),
    ],
)
def test_loss_weight(field, new_field, warning):
    new, notes = migrate.migrate(python_layer(more=field))
    assert new == native_layer(more=new_field)
    assert len(notes) == 2 and notes[1].startswith("layer 'loss': warning: ")
    assert warning in notes[1]


def test_loss_weight_0_counts_with_force_backward():
    """There the article's layer trains all the same."""
    force = "force_backward: true\n"
    new, notes = migrate.migrate(force + python_layer(more="loss_weight: 0"))
    assert new == force + native_layer(more="loss_weight: 1")
    assert "loss_weight was 0" in notes[1]


def test_third_bottom_becomes_element_weights(net, command):
    """As in two public 3D detectors, whose loss is weighed by it and whose gradient is not."""
    net.write_text(python_layer(bottoms=3))
    status, _, err = command(net, "--element-weights")
    assert status == 0
    assert net.read_text() == native_layer().replace("bottom: 'x'", "bottom: 'x' bottom: 'x'", 1)
    assert "warning: 'x' weighs the loss and the gradient now" in err


def test_propagate_down_for_element_weights(net, command):
    net.write_text(python_layer(bottoms=3, more="propagate_down: [1, 0, 1]"))
    status, _, err = command(net, "--element-weights")
    assert status == 2 and "true for the element weights (bottom 2)" in err


def test_no_loss_weight(net, command):
    net.write_bytes(ARTICLE.replace(b"    loss_weight: 1\n", b""))
    status, _, err = command(net)
    assert status == 0 and "warning: it had no loss_weight and has 1 now" in err
    line = b"    loss_param { normalization: NONE }\n"
    expected = MIGRATED.replace(b"    loss_weight: 1\n", b"")
    assert net.read_bytes() == expected.replace(line, b"    loss_weight: 1\n" + line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer {", "not a net's prototxt: 1:"),
        ('net: "net.prototxt" base_lr: 0.1', 'no field named "net"'),
        ("layer { name: 'x' name: 'y' }", 'should not have multiple "name" fields'),
        ("\0", "it has a NUL byte, so it is not a text file"),
        (f"name: '{100 * chr(92)}'", "it has 100 backslashes in a row"),
        ("layers { name: 'x' type: SIGMOID }", "upgrade it first with Caffe's tool"),
        (python_layer("\"{'cls_weight': 5, 'x': 1}\""), "it has 'cls_weight', 'x'"),
        (python_layer("\"{'cls_weight': 2 * 3}\""), "no expression; it is {'cls_weight': 2 * 3}"),
        (python_layer("''"), "layer 'loss': param_str must be a dictionary"),
        (python_layer("\"{'cls_weight': -1}\""), "finite number, not negative; it is -1"),
        (python_layer(bottoms=1), "it must have two bottoms, scores and targets, and one top"),
        (python_layer(bottoms=3), "layer's element weights: check that and add --element-weights"),
        (python_layer(more="loss_weight: [1, 1]"), "more than one loss_weight"),
        (python_layer(more="loss_param { ignore_label: 2 }"), "loss_param, which a Python layer"),
        (python_layer(more="propagate_down: [true, true]"), "propagate_down is true for the"),
        (python_layer("# why\n'{\"cls_weight\": 5}'"), "comment inside the field at line 1"),
    ],
)  # fmt: skip
def test_refused(net, command, text, message):
    net.write_text(text)
    status, out, err = command(net)
    assert (status, out) == (2, b"")
    assert err.startswith(f"migrate: {net}: ") and err.count("\n") == 1
    assert message in err
    assert net.read_text() == text


def test_one_wrong_layer_of_several_leaves_the_file(net, command):
    text = python_layer() + python_layer("'{}'")
    net.write_text(text)
    assert command(net)[0] == 2
    assert net.read_text() == text


def test_blanks_take_linear_time():
    """20 MB of them took 200 s."""
    start = time.monotonic()
    blanks = " " * 1_000_000
    assert migrate.apply_edits(blanks + "x", [(0, 0, "y")]) == "y" + blanks + "x"
    assert migrate.apply_edits(f"a{blanks}b\n", [(1_000_001, 1_000_002, migrate.GONE)]) == "a\n"
    assert time.monotonic() - start < 20


def test_layers_take_linear_time(tmp_path, capfdbinary):
    """Places on one line, comments, and a diff of layers that differ, a minute or more before."""
    one = "layer {{\n  name: '{}'\n  type: '{}'\n  bottom: 'x'\n  bottom: 't'\n}}\n"
    path = tmp_path / "net.prototxt"
    path.write_text("".join(one.format(i, "Python") for i in range(10_000)))
    start = time.monotonic()
    migrate.print_diff(path, "".join(one.format(i, "New") for i in range(10_000)).encode())
    sys.stdout.flush()
    assert capfdbinary.readouterr()[0].count(b"\n+") == 1 + 10_000
    text = "a: 1 " * 200_000
    for at in range(0, len(text), 5):
        field = text_spans.Field("a", at, at + 4, at + 4, [])
        assert migrate.insertion(text, field, ["b: 1"]) == (at + 4, at + 4, " b: 1")
    assert time.monotonic() - start < 20


def test_a_line_of_any_length_in_a_message(net, command):
    net.write_text("layer { " + "name: 'x' " * 100_000)
    status, _, err = command(net)
    assert status == 2 and 'multiple "name" fields' in err and len(err) < 1000


@pytest.mark.parametrize("name", ["missing.prototxt", ""])
def test_no_such_file(tmp_path, command, name):
    status, _, err = command(tmp_path / name)
    assert status == 2 and re.fullmatch(r"migrate: .*: (No such file|Is a).* directory\n", err)


def test_disk_that_fails(net, command, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert command(net) == (1, b"", f"migrate: {net}: cannot be written: No space left on device\n")
    assert net.read_bytes() == ARTICLE
    assert [path.name for path in net.parent.iterdir()] == [net.name]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ImportError('no _caffe.so')", "cannot be imported (no _caffe.so): run build/cpu"),
        (
            "class LayerParameter:\n  class DESCRIPTOR:\n    fields_by_name = {}",
            "has no layer SigmoidCrossEntropyWeightLoss: put it in with scripts/apply.py",
        ),
    ],
)
def test_pycaffe_that_does_not_do(tmp_path, net, code, message):
    proto = tmp_path / "caffe" / "proto"
    proto.mkdir(parents=True)
    for folder in (proto.parent, proto):
        (folder / "__init__.py").touch()
    (proto / "caffe_pb2.py").write_text(code)
    package = Path(migrate.__file__).parent.parent
    # The package's folder may have pycaffe, too: the false one goes first.
    done = subprocess.run(
        [sys.executable, "-m", "weighted_loss_tools", "migrate", net],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{package}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert net.read_bytes() == ARTICLE


# Nets of random layout: each field's text in one of its spellings, between random white space.

SPACE = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\n    ", " # { 'note' \"\n", "\n#}\r\n  "])
SEPARATOR = st.sampled_from(["", "", "", ",", ";"])


@st.composite
def spelled_string(draw, text):
    quote = draw(st.sampled_from("'\""))
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return quote + escaped + quote


@st.composite
def spelled_fields(draw, fields):
    """Fields, as (name, value), in random order; a value is a string or a list of fields."""
    text = ""
    for name, value in draw(st.permutations(fields)):
        if isinstance(value, list):
            opening, closing = draw(st.sampled_from(["{}", "<>"]))
            inner = draw(spelled_fields(value))
            colon = draw(st.sampled_from(["", ":"]))
            text += f"{name}{colon}{opening}{inner}{closing}"
        else:
            text += f"{name}: {value}"
        text += draw(SEPARATOR) + draw(SPACE)
    return draw(SPACE) + text


@st.composite
def article_fields(draw):
    weight = draw(st.sampled_from(["1", "100", "0.5", "3e2"]))
    inner = draw(st.sampled_from(["{'cls_weight': %s}", '{"cls_weight":%s}'])) % weight
    name = draw(spelled_string(NAME))
    fields = [
        ("name", draw(spelled_string("it's a {loss} # \\"))),
        ("type", draw(spelled_string("Python"))),
        ("bottom", '"x"'),
        ("bottom", '"x"'),
        ("top", '"loss"'),
        ("include", [("phase", "TRAIN")]),
        (
            "python_param",
            [("module", name), ("layer", name), ("param_str", draw(spelled_string(inner)))],
        ),
    ]
    loss_weight = draw(st.sampled_from([None, "1", "1.0", "0.25", "[2]"]))
    return fields + ([("loss_weight", loss_weight)] if loss_weight else [])


@st.composite
def nets(draw):
    other = [("name", "'other'"), ("type", '"ReLU"'), ("relu_param", [("negative_slope", "1")])]
    layers = draw(st.lists(st.one_of(article_fields(), st.just(other)), min_size=1, max_size=3))
    return draw(spelled_fields([("layer", fields) for fields in layers] + [("name", "'net'")]))


def transformed(net):
    """What migrate should make of the message."""
    for layer in net.layer:
        if layer.type == "Python":
            weight = float(re.search(r": ?(\S+)}", layer.python_param.param_str)[1])
            layer.type = "SigmoidCrossEntropyWeightLoss"
            layer.ClearField("python_param")
            layer.sigmoid_cross_entropy_weight_loss_param.cls_weight.append(weight)
            layer.sigmoid_cross_entropy_weight_loss_param.stop_on_nan = True
            layer.loss_param.normalization = caffe_pb2.LossParameter.NONE
            layer.loss_weight[:] = [1]
    return net


def comments_of(text):
    _, starts = text_spans.parse(text)
    return [text[start:].split("\n", 1)[0] for start in starts]


@settings(max_examples=300, deadline=None, database=None)
@given(nets())
def test_any_layout(text):
    new, _ = migrate.migrate(text)
    parse = text_format.Parse
    assert parse(new, caffe_pb2.NetParameter()) == transformed(
        parse(text, caffe_pb2.NetParameter())
    )
    assert comments_of(new) == comments_of(text)
    again, _ = migrate.migrate(new)
    assert again == new


@settings(max_examples=200, deadline=None, database=None)
@given(st.data())
def test_damaged_files_are_refused_or_rewritten(data):
    """A piece of the file cut out: one clear line or a whole rewrite, never another exception."""
    text = data.draw(nets())
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    try:
        new, _ = migrate.migrate(text[:start] + text[end:])
    except Refused as refused:
        said = str(refused)
    else:
        text_format.Parse(new, caffe_pb2.NetParameter())
        said = "rewritten"
    assert said and "\n" not in said

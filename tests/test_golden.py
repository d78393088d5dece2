"""The layer against 60-digit results, through pycaffe."""

import json
from pathlib import Path

import numpy as np
import pytest
from one_layer import LIMIT, Layer, in_ulp, parse_layer

CASES = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture(scope="module")
def seen(pytestconfig):
    """The worst errors of all cases; said on the terminal when the last case is through."""
    errors = []
    yield errors
    loss, grad = np.max(errors, axis=0)
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{len(errors)} golden cases: loss {loss:.2f} ulp, gradient {grad:.2f} ulp")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case, seen):
    def shaped(name):
        return np.reshape(case[name], case["shape"])

    weight = case["weight"] and np.reshape(case["weight"]["data"], case["weight"]["shape"])
    layer = Layer(parse_layer(case["layer"]))
    loss, grad = layer.run(shaped("scores"), shaped("targets"), weight)
    assert np.isfinite(loss) == np.isfinite(case["loss"])
    errors = (
        in_ulp(loss - case["loss"], abs(case["loss"]), case["loss_floor"]),
        in_ulp(grad - shaped("grad"), shaped("grad_scale"), shaped("grad_floor")),
    )
    seen.append(errors)
    assert max(errors) <= LIMIT

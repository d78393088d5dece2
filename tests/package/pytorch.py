"""PyTorch, for the tests that need it: they skip where there is none that the package takes."""

import pytest

torch = pytest.importorskip("torch", minversion="1.13.0a0")

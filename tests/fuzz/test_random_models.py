"""200 random models beside PyTorch: outputs, loss and every gradient (see `cases`)."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
from tests.fuzz.cases import Case

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_models(first: int) -> None:
    for seed in range(first, first + 20):
        Case(seed).check()

"""Orders of samples are NumPy's, whoever draws them."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.runtime.cpu import layout, orders
from fastnn.runtime.cpu.orders import CpuOrders
from fastnn.runtime.orders import Orders

#: numbers of which as many are drawn at a time
DRAWN = 8 * layout.ORDER_BLOCKS


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
@pytest.mark.parametrize(
    "samples",
    [*range(1, 20), 31, 32, 33, 255, 256, 257, DRAWN - 1, DRAWN, DRAWN + 1, 1025, 4097, 70_001],
)
def test_compiled_code_draws_what_numpy_does(samples: int, seed: int) -> None:
    drawing = CpuOrders(samples)
    for epoch in (0, 1, 2**40):
        philox = np.random.Philox(key=np.array([seed, epoch], np.uint64))
        wanted = np.random.Generator(philox).permutation(samples)
        assert (drawing.draw(seed, epoch) == wanted).all()
        assert (Orders(samples).draw(seed, epoch) == wanted).all()


def test_an_order_that_is_there_is_not_drawn_again() -> None:
    drawing = CpuOrders(100)
    first = drawing.draw(1, 2).copy()
    drawing.order[0] = -1
    assert drawing.draw(1, 2)[0] == -1
    assert (drawing.draw(1, 3) != first).any()
    assert (drawing.draw(1, 2) == first).all()


def test_more_samples_than_numbers_of_32_bits_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MOST", 99)
    monkeypatch.setattr(CpuOrders, "_permute", None)
    assert (CpuOrders(100).draw(3, 4) == Orders(100).draw(3, 4)).all()

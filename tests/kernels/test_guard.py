"""The guard's kernels: what makes a step doubtful, what is copied, what stops a run."""

from typing import Any

import numpy as np
import pytest

import fastnn.engine.guard  # noqa: F401  (declares the kernels)
from fastnn.kernels import control_block
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests.kernels.common import DTYPES, compute
from tests.kernels.test_step import block_of


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [1e5, -1e5, np.inf, -np.inf, np.nan, 9e4])
@pytest.mark.parametrize("kernel", ["check_size", "check_columns"])
def test_checks(kernel: str, value: float, dtype: Any) -> None:
    for shape in ((3, 17), (1, 1), (2, 64)):
        x = np.full(shape, 0.5)
        x[-1, -1] = value
        guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
        got = compute(kernel, dtype, {}, x=x, guard=guard, limit=1e5)["guard"]
        assert got.tolist() == [int(not abs(value) < 1e5), *[0] * (len(guard) - 1)]


@pytest.mark.parametrize("rate", [1.0, -1.0, 2e3, np.nan])
@pytest.mark.parametrize(("doubt", "always", "stop"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 2)])
def test_safeguard(doubt: int, always: int, stop: int, rate: float) -> None:
    guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
    guard[control_block.DOUBT] = doubt
    x = np.arange(1, 21, dtype=np.float32)
    slots = {f"slot{k}": x + k for k in (1, 2, 3)}
    saved, copies = np.zeros_like(x), {f"saved{k}": np.zeros_like(x) for k in (1, 2, 3)}
    call(
        KERNELS["safeguard"], control=block_of(STOP=stop, RUN_STEP=1),
        schedule=np.array([[np.nan, np.nan], [0.5, rate]]), guard=guard, x=x, saved=saved,
        **slots, **copies, always=always,
    )  # fmt: skip
    copied = bool(stop == 0 and (doubt or always or not abs(rate) <= 1e3))
    assert (saved == x).all() == copied
    for k in (1, 2, 3):
        assert (copies[f"saved{k}"] == slots[f"slot{k}"]).all() == copied
    assert guard[control_block.SAVED] == copied


@pytest.mark.parametrize("name", ["", "x", "slot1", "slot2", "slot3"])
@pytest.mark.parametrize("place", [0, 20])
def test_what_the_host_has_set_is_looked_at(name: str, place: int) -> None:
    """Huge parameters and slots with numbers in them are copied, new ones are not."""
    for dtype in DTYPES:
        for value in (1e15, -np.inf, np.nan) if name == "x" else (-1e-30, np.nan):
            guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
            guard[control_block.DOUBT] = control_block.UNKNOWN
            arrays = {f"slot{k}": np.zeros(21, dtype) for k in (1, 2, 3)}
            arrays["x"] = np.full(21, -9e14, dtype)
            if name:
                arrays[name][place] = value
            saved = {f"saved{n[4:]}": np.full(21, 7.0, dtype) for n in arrays}
            call(
                KERNELS["safeguard"], control=block_of(), schedule=np.ones((1, 1)), guard=guard,
                **arrays, **saved, always=0,
            )  # fmt: skip
            assert guard[control_block.SAVED] == (name != "")
            assert (guard[control_block.DOUBT] == 0) == (name == "")
            for own, copy in zip(arrays.values(), saved.values(), strict=True):
                expected = own if name else np.full(21, 7.0, dtype)
                np.testing.assert_array_equal(copy, expected)


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("large", [0, 1])
def test_latch(large: int, broken: int) -> None:
    guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
    guard[[control_block.DOUBT, control_block.LARGE, control_block.BROKEN]] = (
        1 - large,
        large,
        broken,
    )
    got = compute("latch", np.float32, {}, control=block_of(STEP=3), guard=guard)
    assert got["control"][control_block.STOP] == (control_block.NOT_FINITE if broken else 0)
    if not broken:
        assert got["guard"][[control_block.DOUBT, control_block.LARGE]].tolist() == [large, 0]

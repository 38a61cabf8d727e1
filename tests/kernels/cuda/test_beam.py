"""Beam search's kernels on CUDA: the CPU's results, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.beam import cpu, cuda  # noqa: F401  (declare the kernels)
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.testing import kernels
from tests.kernels.cuda.common import compute_both


def test_selection() -> None:
    rng = np.random.default_rng(1)
    logits = np.log(rng.dirichlet(np.ones(7), (2, 3))).reshape(2, 21).astype(np.float32)
    logits[1, :14] = logits[1, 3]  # many alike
    given = dict(
        logits=logits, score=-np.abs(rng.normal(size=(2, 3))), count=np.full((2, 3), 2.0),
        ended=np.float32([[0, 1, 0], [0, 0, 0]]), live=np.float32([[1], [0]]),
        norms=(5 + np.arange(6)) / 6, stop=2, best=np.zeros((2, 3)), which=np.zeros((2, 3), int),
    )  # fmt: skip
    out = dict.fromkeys(("parent", "symbol", "new_score", "new_count", "new_ended"), (2, 3))
    scratch = ("best", "which")
    given = {n: v for n, v in given.items() if n not in scratch}
    found = compute_both("beam_select", np.float32, out, exact=True, **given,
                         **{n: np.zeros((2, 3), int if n == "which" else float)
                            for n in scratch})  # fmt: skip
    assert (found["symbol"][1] != 2).all()


def test_order_and_ids() -> None:
    x = np.arange(24.0).reshape(2, 12)
    parent = np.array([[2, 0, 0], [1, 1, 2]])
    y = compute_both("beam_reorder", np.float32, {"y": (2, 12)}, exact=True, x=x, parent=parent,
                     running=np.ones(2))  # fmt: skip
    assert y["y"][0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 0, 1, 2, 3]
    compute_both("to_ids", np.float32, {"y": (2, 12)}, exact=True, x=x)


@pytest.mark.parametrize("running", [np.float32([1, 1]), np.float32([1, 0])])
def test_in_place(running: np.ndarray) -> None:
    x, parent = np.arange(24.0).reshape(2, 12), np.array([[2, 1, 0], [1, 1, 2]])
    wanted = compute_both("beam_reorder", np.float32, {"y": (2, 12)}, exact=True, x=x,
                          parent=parent, running=running)["y"]  # fmt: skip
    for device in ("cpu", "cuda"):
        own = {"x": x.astype(np.float32), "room": np.full((2, 12), np.nan, np.float32)}
        call_on(device, "beam_reorder_in_place", **own, parent=parent, running=running)
        np.testing.assert_array_equal(own["x"], wanted)


@pytest.mark.parametrize("running", [np.float32([1, 1]), np.float32([1, 0])])
def test_rows_are_put(running: np.ndarray) -> None:
    """Two tables of three rows of two numbers for each sequence; one row is none of them."""
    x, row, at = np.arange(24.0).reshape(2, 12), -np.ones((2, 4)), np.array([[2, 3], [0, 1]])
    given = {"at": at, "running": running}
    wanted = compute_both("put_row_forward", np.float32, {"y": (2, 12)}, exact=True, x=x, row=row,
                          **given)["y"]  # fmt: skip
    assert (wanted == -1).sum() == (2 if running[1] == 0 else 6)
    compute_both("put_row_backward_row", np.float32, {"drow": (2, 4)}, exact=True, dy=x, **given)
    for device in ("cpu", "cuda"):
        own = x.astype(np.float32)
        call_on(device, "put_row_in_place", x=own, row=row.astype(np.float32), **given)
        np.testing.assert_array_equal(own, wanted)


def call_on(device: str, name: str, **operands: Any) -> None:
    if device == "cpu":
        kernels.call(KERNELS[name], **operands)
    else:
        kernels.call_cuda(CUDA_KERNELS[name], **operands)

"""Beam search's kernels on CUDA: the CPU's results, bit for bit."""

from __future__ import annotations

import numpy as np

from fastnn.kernels.beam import cpu, cuda  # noqa: F401  (declare the kernels)
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
    y = compute_both("beam_reorder", np.float32, {"y": (2, 12)}, exact=True, x=x, parent=parent)
    assert y["y"][0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 0, 1, 2, 3]
    compute_both("to_ids", np.float32, {"y": (2, 12)}, exact=True, x=x)

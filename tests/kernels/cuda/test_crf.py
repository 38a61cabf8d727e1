"""Conditional random fields on CUDA, against the CPU's kernels as plain Python."""

from __future__ import annotations

import numpy as np

from fastnn.kernels.crf.shared import columns_for, room_for
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import close, poisoned
from tests.kernels.test_crf import NAMES, chains


def test_loss_gradients_and_best_tags() -> None:
    x, target, _, weights, dloss = chains(5, 3, 3)
    lengths = np.array([3, 2, 0, 3, 3])
    x[3, 1, 0], target[4, 2] = np.nan, 7
    x, dloss, *weights = (a.astype(np.float32) for a in (x, dloss, *weights))
    (B, T, C), M = x.shape, columns_for(3)
    weights = dict(zip(NAMES, weights, strict=True))
    labels, results = dict(target=target, lengths=lengths), []
    for table, run, ranges in (
        (CUDA_KERNELS, call_cuda, ({}, {})),
        (KERNELS, lambda kernel, **k: kernel(**k), ({"lo": 0, "hi": B}, {"lo": 0, "hi": C})),
    ):
        shapes = dict(loss=(B,), share=(B, T, M), pair=(B, C + 2, M), work=(B, room_for(C, T)),
                      dx=x.shape, dtransitions=(C, C), dstart=(C,), dend=(C,))  # fmt: skip
        out = {name: poisoned(shape, np.float32, 0xFF)[0] for name, shape in shapes.items()}
        kept = {name: out[name] for name in ("loss", "share", "pair", "work")}
        run(table["crf_forward"], x=x, **labels, **weights, **kept, **ranges[0])
        more = dict(share=out["share"], dloss=dloss, dx=out["dx"])
        run(table["crf_backward"], **labels, **more, **ranges[0])
        out["pair"][3:] = 0.25  # without the sequences that have no loss
        more = {f"d{name}": out[f"d{name}"] for name in NAMES}
        run(
            table["crf_backward_transitions"], pair=out["pair"], dloss=dloss, **more, **ranges[1]
        )  # fmt: skip
        tags, score = np.full((B, T), 77), np.zeros(B, np.float32)
        more = dict(tags=tags, score=score, best=np.zeros((B, M), np.float32),
                    came=np.zeros((B, T, M), np.float32))  # fmt: skip
        run(table["crf_decode"], x=x, lengths=lengths, **weights, **more, **ranges[0])
        names = ("loss", "dx", *(f"d{name}" for name in NAMES))
        results.append([*(out[name] for name in names), tags[:3], score[:3]])
    for a, b in zip(*results, strict=True):
        close(a, b, np.float32, factor=5)
    loss, dx, dtransitions = results[0][:3]
    assert np.isfinite(loss).tolist() == [True, True, True, False, False]
    assert np.isnan(dx[3:]).all()
    assert np.isfinite(dtransitions).all()

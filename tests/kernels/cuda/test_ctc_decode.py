"""Decoding on CUDA: the CPU's bits of labels, from the same source."""

from __future__ import annotations

import numpy as np

from fastnn.data.ngram import NGram
from fastnn.kernels.ctc.decode import NODES, SCORES, STATES
from fastnn.nn import CTCDecoder
from tests.kernels.cuda.common import compute_both


def test_greedy_and_forced_alignment() -> None:
    x = np.random.default_rng(1).standard_normal((2, 4, 3))
    shapes = {"labels": (2, 4), "counts": (2,)}
    compute_both("ctc_greedy", np.float32, shapes, x=x, lengths=np.array([4, 2]), blank=0)


def test_search() -> None:
    decoder = CTCDecoder(
        ["", "a", "b", " "], 2, words=["a", "ab"], model=NGram.train([["a", "ab"]], 2)
    )  # fmt: skip
    assert decoder.word_list is not None
    K, y = 2, np.log(np.random.default_rng(1).dirichlet(np.ones(4), (2, 4))).astype(np.float32)
    child, words = decoder.word_list
    m = decoder.model
    arrays = dict(child=child, words=words, first=m.first, arcs=m.tokens, arc_scores=m.scores)
    arrays |= dict(arc_next=m.following, backoff=m.backoff, backoff_scores=m.backoff_scores)
    found = search(y, K, arrays, dict(blank=0, space=3, end=2, weight=0.5, bonus=0.1, most=0.1))
    assert (found["counts"] >= 0).any()


def search(y, K, arrays, numbers):
    """The kernels' results on both devices, the same labels."""
    from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
    from fastnn.testing.kernels import call_cuda
    from tests.kernels.cuda.common import outputs, prepared

    B, T, _ = y.shape
    shapes = dict(labels=(B, 2, T), counts=(B, 2), score=(B, 2), nodes=(B, T, NODES * K),
                  scores=(B, SCORES * K), states=(B, STATES * K))  # fmt: skip
    results = []
    for kernel in (CUDA_KERNELS["ctc_beam"], KERNELS["ctc_beam"]):
        given = dict(y=y, lengths=np.array([4, 3]), **arrays, **numbers)
        fixed, inout = prepared(kernel, np.float32, shapes, given)
        made, _ = outputs(kernel, np.float32, shapes, inout, 0xFF)
        if kernel is KERNELS["ctc_beam"]:
            kernel(**fixed, **made, lo=0, hi=B)
        else:
            call_cuda(kernel, **fixed, **made)
        results.append({name: made[name] for name in ("labels", "counts", "score")})
    for name in ("labels", "counts"):
        np.testing.assert_array_equal(results[0][name], results[1][name])
    np.testing.assert_allclose(results[0]["score"], results[1]["score"], rtol=1e-5)
    return results[0]

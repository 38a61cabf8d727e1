"""Attention on CUDA, against the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels import control_block
from fastnn.kernels.attention import cuda  # noqa: F401  (declares the kernels)
from tests.kernels.cuda.common import compute_cuda
from tests.naive_attention import attention, attention_gradient, laid_out, taken_apart

#: (heads, apart, queries, keys, causal, first, key lengths, query lengths, dropout)
CASES = [
    (2, 0, 9, 18, 0, 0, None, None, False),
    (1, 1, 3, 5, 1, 2, [5, 0], [2, 3], True),
]


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(case: Any) -> None:
    heads, apart, queries, keys, causal, first, key_lengths, query_lengths, drops = case
    rng = np.random.default_rng(5)
    B, D, E = 1 if key_lengths is None else 2, 2, 3
    q, k, v, dy = (
        rng.standard_normal((B, heads, t, c)).astype(np.float32)
        for t, c in ((queries, D), (keys, D), (keys, E), (queries, E))
    )
    control = np.zeros(control_block.LENGTH, np.int64)
    control[control_block.SEED] = 3
    lengths = {
        "key_lengths": None if key_lengths is None else np.array(key_lengths),
        "query_lengths": None if query_lengths is None else np.array(query_lengths),
    }
    options = dict(heads=heads, apart=apart, causal=causal, first=first, scale=0.7, stream=1,
                   keep=0.5 if drops else 1.0)  # fmt: skip
    factors = kept(control, B * heads * queries, keys).reshape(B, heads, queries, keys)
    masks = dict(
        causal=causal, first=first, scale=0.7, factors=factors if drops else 1.0, **lengths
    )
    given = {n: laid_out(x, apart) for n, x in {"q": q, "k": k, "v": v}.items()}
    more = dict(control=control if drops else None, scratch=np.zeros((B, 1), np.float32),
                **lengths, **options)  # fmt: skip
    out = {"y": laid_out(dy, apart).shape, "lse": (B, heads * queries)}
    found = compute_cuda("attention_forward", np.float32, out, **given, **more)
    wanted = attention(q, k, v, **masks)
    np.testing.assert_allclose(taken_apart(found["y"], heads, apart), wanted, rtol=2e-5, atol=2e-6)
    out = {f"d{n}": x.shape for n, x in given.items()}
    slopes = compute_cuda("attention_backward", np.float32, out, **given, **found,
                          dy=laid_out(dy, apart), **more)  # fmt: skip
    for name, want in zip("qkv", attention_gradient(q, k, v, dy, **masks), strict=True):
        got = taken_apart(slopes[f"d{name}"], heads, apart)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def kept(control: np.ndarray, rows: int, keys: int) -> np.ndarray:
    """Factors of dropout for weights, by the CPU's kernel: each row begins with a new group."""
    from fastnn.kernels.declare import KERNELS

    ones = np.ones((rows, -(-keys // 64) * 64), np.float32)
    y = np.zeros_like(ones)
    KERNELS["dropout"](x=ones, y=y, control=control, keep=0.5, scale=2.0, stream=1, lo=0, hi=rows)
    return y[:, :keys]

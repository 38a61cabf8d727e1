"""Attention in float64 NumPy, with all weights in memory; heads are the second axis."""

from __future__ import annotations

from typing import Any

import numpy as np


def weights(
    q: np.ndarray, k: np.ndarray, *, causal: Any = False, first: int = 0, scale: float = 1.0,
    key_lengths: Any = None, query_lengths: Any = None,
) -> np.ndarray:  # fmt: skip
    """The weights of q (B, H, M, D) and k (B, H, N, D), 0 where nothing is to be seen."""
    s = np.einsum("bhmd,bhnd->bhmn", q.astype(np.float64), k.astype(np.float64)) * scale
    B, _, M, N = s.shape
    seen = np.ones((B, 1, M, N), bool)
    if causal:
        seen &= np.arange(N) <= np.arange(M)[:, None] + first
    if key_lengths is not None:
        seen &= (np.arange(N) < np.asarray(key_lengths)[:, None])[:, None, None]
    if query_lengths is not None:
        seen &= (np.arange(M) < np.asarray(query_lengths)[:, None])[:, None, :, None]
    s = np.where(seen, s, -np.inf)
    top = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(top), top, 0.0))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total > 0, total, 1.0)


def attention(q: Any, k: Any, v: Any, *, factors: Any = 1.0, **masks: Any) -> np.ndarray:
    """The sums of v (B, H, N, E) by weights; `factors` are those of dropout."""
    return (weights(q, k, **masks) * factors) @ v.astype(np.float64)


def attention_gradient(
    q: Any, k: Any, v: Any, dy: Any, *, factors: Any = 1.0, scale: float = 1.0, **masks: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients to q, k and v."""
    q, k, v, dy = (x.astype(np.float64) for x in (q, k, v, dy))
    p = weights(q, k, scale=scale, **masks)
    dv = (p * factors).swapaxes(2, 3) @ dy
    dp = dy @ v.swapaxes(2, 3) * factors
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
    return ds @ k, ds.swapaxes(2, 3) @ q, dv


def laid_out(x: np.ndarray, apart: Any) -> np.ndarray:
    """(B, H, T, D) with heads side by side, (B, T, H D), or one after the other, (B, H T, D)."""
    if apart:
        return np.ascontiguousarray(x.reshape(x.shape[0], -1, x.shape[-1]))
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1))


def taken_apart(x: np.ndarray, heads: int, apart: Any) -> np.ndarray:
    """The reverse of `laid_out`."""
    if apart:
        return x.reshape(x.shape[0], heads, -1, x.shape[-1])
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

"""Attention's kernels against float64 with all weights in memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn.kernels.attention.cpu  # noqa: F401  (declares the kernels)
from fastnn.kernels import control_block
from fastnn.kernels.attention.cpu_blocks import backward_scratch, forward_scratch
from fastnn.kernels.declare import KERNELS
from tests.kernels.common import close
from tests.naive_attention import attention, attention_gradient, laid_out, taken_apart

#: (samples, heads, queries, keys, size, value size, options); sizes at the edges of tiles, of
#: blocks of 64 queries and of 384 (192) keys, and past them
CASES: list[tuple[Any, ...]] = [
    (1, 1, 1, 1, 1, 1, {}),
    (2, 2, 3, 2, 2, 3, {"causal": 1}),
    (2, 1, 4, 5, 2, 2, {"key_lengths": [5, 0], "query_lengths": [2, 4]}),
    (2, 2, 17, 31, 8, 7, {"key_lengths": [31, 16], "causal": 1, "first": 3, "apart": 1}),
    (1, 1, 65, 64, 16, 33, {"causal": 1}),
    (1, 2, 9, 385, 17, 16, {}),
    (2, 1, 130, 450, 4, 5, {"causal": 1, "first": 321, "key_lengths": [450, 193]}),
    (1, 1, 450, 450, 3, 3, {"causal": 1}),
    (2, 2, 20, 70, 6, 4, {"keep": 0.6, "key_lengths": [70, 66]}),
    (1, 2, 20, 400, 6, 4, {"keep": 0.6, "causal": 1, "first": 200}),
]


def operands(case: Any, dtype: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What the kernel takes, the masks for the oracle, and the arrays (B, H, T, ...)."""
    B, H, M, N, D, E, options = case
    rng = np.random.default_rng([B, H, M, N])
    arrays = [rng.standard_normal((B, H, t, c)).astype(dtype)
              for t, c in ((M, D), (N, D), (N, E), (M, E))]  # fmt: skip
    given = {"heads": H, "apart": 0, "causal": 0, "first": 0, "scale": 0.6, "keep": 1.0}
    given |= {"key_lengths": [], "query_lengths": [], "stream": 1, **options}
    control = np.zeros(control_block.LENGTH, np.int64)
    control[control_block.SEED] = 3
    given["control"] = control if given["keep"] != 1.0 else control[:0]
    masks = {n: given[n] for n in ("causal", "first", "scale")}
    masks |= {n: given[n] or None for n in ("key_lengths", "query_lengths")}
    masks["factors"] = factors(control, B * H * M, N, given["keep"]).reshape(B, H, M, N)
    for n in ("key_lengths", "query_lengths"):
        if not given[n]:
            given[n] = np.zeros(0, np.int64)
    return given, masks, arrays


def factors(control: np.ndarray, rows: int, keys: int, keep: float) -> np.ndarray:
    """Factors of dropout: those of `dropout`, each row beginning with a new group of 64."""
    ones = np.ones((rows, -(-keys // 64) * 64))
    y = np.zeros_like(ones)
    scale = 1.0 / keep
    KERNELS["dropout"](x=ones, y=y, control=control, keep=keep, scale=scale, stream=1, lo=0,
                       hi=rows)  # fmt: skip
    return y[:, :keys]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Any, dtype: Any) -> None:
    B, H, M, N, D, E, _ = case
    given, masks, (q, k, v, dy) = operands(case, dtype)
    apart, item = given["apart"], np.dtype(dtype).itemsize
    named = {"q": laid_out(q, apart), "k": laid_out(k, apart), "v": laid_out(v, apart)}
    out = {"y": laid_out(dy, apart).shape, "lse": (B, H * M)}
    out["scratch"] = (B, forward_scratch(N, D, E, item))
    found = run("attention_forward", dtype, out, **named, **given)
    close(taken_apart(found["y"], H, apart), attention(q, k, v, **masks), dtype, 3)
    out = {f"d{n}": x.shape for n, x in named.items()}
    out["scratch"] = (B, backward_scratch(N, D, E, item))
    slopes = run("attention_backward", dtype, out, **named, y=found["y"], lse=found["lse"],
                 dy=laid_out(dy, apart), **given)  # fmt: skip
    for name, want in zip("qkv", attention_gradient(q, k, v, dy, **masks), strict=True):
        close(taken_apart(slopes[f"d{name}"], H, apart), want, dtype, 30)


def test_more_queries_than_a_packed_block_serves() -> None:
    """The last of 1,090 queries, alone, have the same bits."""
    M, begin, D = 1090, 1000, 3
    q, k, v, dy = (np.random.default_rng(n).standard_normal((1, M, D)).astype(np.float32)
                   for n in range(4))  # fmt: skip
    found = []
    for first in (0, begin):
        given = {"heads": 1, "apart": 0, "causal": 1, "scale": 0.6, "keep": 1.0, "stream": 1}
        given |= {"key_lengths": [], "query_lengths": [], "control": [], "first": first}
        some, rows = np.ascontiguousarray(q[:, first:]), M - first
        out = {"y": (1, rows, D), "lse": (1, rows), "scratch": (1, forward_scratch(M, D, D, 4))}
        passed = run("attention_forward", np.float32, out, q=some, k=k, v=v, **given)
        out = {"dq": (1, rows, D), "dk": k.shape, "dv": v.shape}
        out["scratch"] = (1, backward_scratch(M, D, D, 4))
        slopes = run("attention_backward", np.float32, out, q=some, k=k, v=v, **given, **passed,
                     dy=np.ascontiguousarray(dy[:, first:]))  # fmt: skip
        found.append([passed["y"], passed["lse"].reshape(1, rows, 1), slopes["dq"]])
    for whole, alone in zip(*found, strict=True):
        assert whole[:, begin:].tobytes() == alone.tobytes()


def run(name: str, dtype: Any, out: dict[str, Any], **given: Any) -> dict[str, Any]:
    """`compute` with scratch memory that it does not compare, and absent lengths."""
    from fastnn.kernels.declare import Array
    from fastnn.testing.kernels import call

    kernel = KERNELS[name]
    made: dict[str, Any] = {}
    rows = given["q"].shape[0]
    for byte in (0xFF, 0x00):
        for cuts in ([0, rows], range(rows + 1)):
            arrays = {n: np.full(np.prod(s) * np.dtype(dtype).itemsize, byte, np.uint8)
                      .view(dtype).reshape(s) for n, s in out.items()}  # fmt: skip
            taken = {n: None if isinstance(kernel.params[n], Array) and np.size(x) == 0 else
                     np.asarray(x, np.int64) if n.endswith("lengths") else x
                     for n, x in given.items()}  # fmt: skip
            for lo, hi in itertools.pairwise(cuts):
                call(kernel, lo, hi, **taken, **arrays)
            arrays.pop("scratch")
            for n, x in arrays.items():
                assert made.setdefault(n, x).tobytes() == x.tobytes(), f"{n}: bits differ"
    return made


def test_as_plain_python() -> None:
    """The twin of the compiled kernel."""
    case = (2, 2, 3, 2, 2, 3, {"causal": 1})
    given, masks, (q, k, v, _) = operands(case, np.float32)
    out = {"y": (2, 3, 6), "lse": (2, 6)}
    scratch = np.zeros((2, forward_scratch(2, 2, 2, 4)), np.float32)
    arrays = {n: np.zeros(s, np.float32) for n, s in out.items()}
    KERNELS["attention_forward"](
        q=laid_out(q, 0), k=laid_out(k, 0), v=laid_out(v, 0), scratch=scratch, lo=0, hi=2,
        **arrays, **given,
    )  # fmt: skip
    close(taken_apart(arrays["y"], 2, 0), attention(q, k, v, **masks), np.float32, 3)


@pytest.mark.parametrize("causal", [0, 1])
def test_nan_behind_the_end_reaches_nothing(causal: int) -> None:
    """What lies past a sequence's end, and in other samples, changes no bit."""
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 2, 20, 8)).astype(np.float32)
    lengths = np.array([13, 20])
    more = {"key_lengths": lengths, "query_lengths": lengths, "heads": 2, "apart": 0, "first": 0,
            "causal": causal, "scale": 0.5, "keep": 1.0, "stream": 0, "control": ()}  # fmt: skip
    out = {"y": (2, 20, 8), "lse": (2, 40), "scratch": (2, forward_scratch(20, 4, 4, 4))}
    want = run("attention_forward", np.float32, out, q=q, k=k, v=v, **more)
    for x in (q, k, v):
        x[0, 13:], x[1] = np.nan, np.inf
    found = run("attention_forward", np.float32, out, q=q, k=k, v=v, **more)
    assert found["y"][0].tobytes() == want["y"][0].tobytes()
    alone = {n: x[:1, :13].copy() for n, x in {"q": q, "k": k, "v": v}.items()}
    out = {"y": (1, 13, 8), "lse": (1, 26), "scratch": (1, forward_scratch(13, 4, 4, 4))}
    found = run("attention_forward", np.float32, out, **alone, **more | {
        "key_lengths": [], "query_lengths": []})  # fmt: skip
    assert found["y"][0].tobytes() == want["y"][0, :13].tobytes()


def test_nan_stays_in_its_row() -> None:
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 1, 9, 8)).astype(np.float32)
    q[0, 4, 0] = np.nan
    out = {"y": (1, 9, 8), "lse": (1, 9), "scratch": (1, forward_scratch(9, 8, 8, 4))}
    found = run("attention_forward", np.float32, out, q=q, k=k, v=v, key_lengths=[],
                query_lengths=[], heads=1, apart=0, first=0, causal=0, scale=0.5, keep=1.0,
                stream=0, control=())["y"]  # fmt: skip
    assert np.isnan(found[0, 4]).all()
    assert np.isfinite(np.delete(found, 4, 1)).all()


def test_large_scores() -> None:
    """Scores of +-1e4 overflow nowhere: the largest of each row is subtracted."""
    q = np.array([[[100.0], [-100.0]]], np.float32)
    k = np.array([[[100.0], [99.0], [-100.0]]], np.float32)
    v = np.array([[[1.0], [2.0], [3.0]]], np.float32)
    out = {"y": (1, 2, 1), "lse": (1, 2), "scratch": (1, forward_scratch(3, 1, 1, 4))}
    found = run("attention_forward", np.float32, out, q=q, k=k, v=v, key_lengths=[],
                query_lengths=[], heads=1, apart=0, first=0, causal=0, scale=1.0, keep=1.0,
                stream=0, control=())  # fmt: skip
    np.testing.assert_array_equal(found["y"][0, :, 0], [1.0, 3.0])
    np.testing.assert_allclose(found["lse"][0], [1e4, 1e4])

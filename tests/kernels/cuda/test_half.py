"""Products of factors of 16 bits against float64, in every shape and for both types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import half
from fastnn.kernels.matmul.cuda import TILES
from fastnn.kernels.matmul.cuda_half import LETTERS, SHAPES, choose_shape
from tests.kernels.cuda.common import compute_cuda
from tests.kernels.cuda.test_matmul import normal, within

KINDS = sorted(LETTERS)
#: (rows, sum, columns): edges of tiles, of slices, and of pieces of eight words
SIZES = [(1, 1, 1), (17, 33, 10), (33, 136, 24)]


def words(x: np.ndarray, kind: str) -> np.ndarray:
    return np.asarray(half.half_word(np.ascontiguousarray(x), int(kind == "bf16")))


def numbers(x: np.ndarray, kind: str) -> np.ndarray:
    return np.asarray(half.half_value(x, int(kind == "bf16")))


def products(kind: str, suffix: str, m: int, depth: int, n: int) -> None:
    """All three as (m, depth) @ (depth, n), of words, each against float64."""
    a, b = words(normal(0, m, depth), kind), words(normal(1, depth, n), kind)
    a_t, b_t, bias = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), normal(2, n)
    left, right = numbers(a, kind), numbers(b, kind)
    end = f"{kind}{suffix}"
    both = {"y": (m, n), "y_half": (m, n)}
    given: dict[str, Any] = {"x": a, "w": b, "bias": bias, "activation": -1}
    y = compute_cuda(f"linear_forward_{end}", np.float32, both, **given)
    within(y["y"], left, right, bias, np.float32)
    np.testing.assert_array_equal(y["y_half"], words(y["y"], kind))
    both = {"dx": (m, n), "dx_half": (m, n)}
    given = {"dy": a, "w": b_t, "y": None, "activation": -1}
    dx = compute_cuda(f"linear_backward_input_{end}", np.float32, both, **given)
    within(dx["dx"], left, right, None, np.float32)
    np.testing.assert_array_equal(dx["dx_half"], words(dx["dx"], kind))
    out = {"dw": (m, n), "dbias": (n,)}
    got = compute_cuda(f"linear_backward_weight_{end}", np.float32, out, x=a_t, dy=b)
    within(got["dw"], left, right, None, np.float32)
    within(got["dbias"][None], np.ones((1, depth)), right, None, np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "depth", "n"), SIZES)
def test_tiny(kind: str, m: int, depth: int, n: int) -> None:
    products(kind, "_tiny", m, depth, n)


@pytest.mark.parametrize(("kind", "suffix"), [("bf16", ""), ("fp16", "_middle")])
def test_shapes(kind: str, suffix: str) -> None:
    shape = SHAPES[suffix]
    products(kind, suffix, shape.rows, shape.depth + 8, shape.columns - 8)
    products(kind, suffix, 20, 35, 12)


@pytest.mark.parametrize(("kind", "count"), [("bf16", 2), ("fp16", 3)])
def test_long_sums_in_parts(kind: str, count: int) -> None:
    """All three, with what follows; the last part of three has no terms."""
    m, depth, n = 9, 250, 35
    a, b = words(normal(0, m, depth), kind), words(normal(1, depth, n), kind)
    a_t, b_t, bias = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), normal(2, n)
    left, right = numbers(a, kind), numbers(b, kind)
    scratch = {"parts": np.full((count, m, n), np.nan, np.float32), "counts": np.zeros(TILES, int)}
    both = {"y": (m, n), "y_half": (m, n)}
    given: dict[str, Any] = {"x": a, "w": b, "bias": bias, "activation": 1, **scratch}
    y = compute_cuda(f"linear_forward_{kind}_parts", np.float32, both, **given)
    want = left.astype(float) @ right + bias
    np.testing.assert_allclose(y["y"], np.maximum(want, 0), atol=2e-4)
    np.testing.assert_array_equal(y["y_half"], words(y["y"], kind))
    saved = words(np.where(want > 0, want, 0), kind)
    given = {"dy": a, "w": b_t, "y": saved, "activation": 1, **scratch}
    both = {"dx": (m, n), "dx_half": (m, n)}
    dx = compute_cuda(f"linear_backward_input_{kind}_parts", np.float32, both, **given)
    slope = (left.astype(float) @ right) * (numbers(saved, kind) > 0)
    np.testing.assert_allclose(dx["dx"], slope, atol=2e-4)
    np.testing.assert_array_equal(dx["dx_half"], words(dx["dx"], kind))
    out = {"dw": (m, n), "dbias": (n,)}
    sums = {"bias_parts": np.full((count, n), np.nan, np.float32), **scratch}
    name = f"linear_backward_weight_{kind}_parts"
    got = compute_cuda(name, np.float32, out, x=a_t, dy=b, **sums)
    within(got["dw"], left, right, None, np.float32)
    within(got["dbias"][None], np.ones((1, depth)), right, None, np.float32)
    assert not any(result["counts"].any() for result in (y, dx, got))


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_many_matrices(kind: str) -> None:
    p, m, c, k = 2, 9, 20, 12
    a, b = words(normal(0, p, m, c), kind), words(normal(1, p, c, k), kind)
    dy = words(normal(2, p, m, k), kind)
    both = {"y": (p, m, k), "y_half": (p, m, k)}
    y = compute_cuda(f"matmul_forward_{kind}", np.float32, both, a=a, b=b)
    db = compute_cuda(f"matmul_backward_b_{kind}", np.float32, {"db": (p, c, k)}, a=a, dy=dy)["db"]
    np.testing.assert_array_equal(y["y_half"], words(y["y"], kind))
    for i in range(p):
        within(y["y"][i], numbers(a[i], kind), numbers(b[i], kind), None, np.float32)
        within(db[i], numbers(a[i].T, kind), numbers(dy[i], kind), None, np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_kernels_write_in_16_bits(kind: str) -> None:
    """A batch and the logits' gradient: the words of what the kernels for float32 give."""
    source, order = normal(0, 7, 5), np.array([6, 0, 3])
    given: dict[str, Any] = {"source": source, "order": order, "control": np.zeros(16, int)}
    for y in ({"y": (3, 5)}, {}):
        rest = {} if y else {"y": None}
        out = {**y, "y_half": (3, 5)}
        got = compute_cuda(f"gather_rows_{kind}", np.float32, out, **given, **rest)
        np.testing.assert_array_equal(got["y_half"], words(source[order], kind))
    x, dloss = normal(1, 4, 35), normal(2, 4)
    rows: dict[str, Any] = {"x": x, "target": np.array([3, -1, 34, 0]), "weight": np.zeros(0)}
    rows |= {"dloss": dloss, "smoothing": 0.1, "ignore_index": -1}
    out = {"loss": (4,), "dx": x.shape}
    want = compute_cuda("cross_entropy_scaled", np.float32, out, **rows)
    out["dx_half"] = x.shape
    got = compute_cuda(f"cross_entropy_scaled_{kind}", np.float32, out, **rows)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    np.testing.assert_array_equal(got["dx_half"], words(want["dx"], kind))
    got = compute_cuda(
        f"cross_entropy_backward_{kind}", np.float32, {"dx_half": x.shape}, dlogits=x, dloss=dloss,
        dx=None,
    )  # fmt: skip
    np.testing.assert_array_equal(got["dx_half"], words(x * dloss[:, None], kind))


@pytest.mark.parametrize("kind", KINDS)
def test_endings(kind: str) -> None:
    """One output alone, activations and their slopes: as of float32 kernels on the same numbers."""
    m, depth, n = 9, 20, 12
    a, b = words(normal(0, m, depth), kind), words(normal(1, depth, n), kind)
    b_t, bias = np.ascontiguousarray(b.T), normal(2, n)
    forward, back = (f"linear_{way}_{kind}_tiny" for way in ("forward", "backward_input"))
    given: dict[str, Any] = {"x": a, "w": b, "bias": bias, "y_half": None}
    plain = compute_cuda(forward, np.float32, {"y": (m, n)}, activation=-1, **given)["y"]
    backward: dict[str, Any] = {"dy": a, "w": b_t, "dx_half": None}
    slope = compute_cuda(back, np.float32, {"dx": (m, n)}, activation=-1, y=None, **backward)["dx"]
    for activation, name in enumerate(("tanh", "relu", "sigmoid")):
        y = compute_cuda(forward, np.float32, {"y": (m, n)}, activation=activation, **given)["y"]
        want = compute_cuda(f"{name}_forward", np.float32, {"y": (m, n)}, x=plain)["y"]
        np.testing.assert_array_equal(y, want)
        saved = words(y, kind)
        dx = compute_cuda(
            back, np.float32, {"dx": (m, n)}, activation=activation, y=saved, **backward
        )["dx"]
        want = compute_cuda(
            f"{name}_backward", np.float32, {"dx": (m, n)}, y=numbers(saved, kind), dy=slope
        )["dx"]
        np.testing.assert_array_equal(dx, want)
    alone = {"x": a, "w": b, "bias": np.zeros(0), "y": None, "activation": -1}
    got = compute_cuda(forward, np.float32, {"y_half": (m, n)}, **alone)["y_half"]
    within(numbers(got, kind), numbers(a, kind), numbers(b, kind), None, np.float32, eps=2.0**-8)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding(kind: str) -> None:
    """To the nearest number, ties to even; infinite beyond the largest, and NaN stays NaN."""
    bits, largest = (8, 3.3895313892515355e38) if kind == "bf16" else (11, 65504.0)
    x = np.concatenate([normal(0, 1000), [0.0, 1 + 2.0**-bits, 1 + 3 * 2.0**-bits, largest]])
    mantissa, exponent = np.frexp(x)
    want = np.ldexp(np.rint(mantissa * 2.0**bits), exponent - bits)
    if kind == "fp16":  # its smallest numbers have fewer bits
        want = np.where(np.abs(x) < 2.0**-14, np.rint(x * 2.0**24) * 2.0**-24, want)
    given = np.float32(x).reshape(1, -1)
    got = compute_cuda(f"to_{kind}", np.float32, {"y": given.shape}, x=given)["y"]
    np.testing.assert_array_equal(numbers(got, kind)[0], np.float32(want))
    special = np.float32([[np.inf, -np.inf, np.nan, largest * 1.003]])
    got = numbers(compute_cuda(f"to_{kind}", np.float32, {"y": (1, 4)}, x=special)["y"], kind)
    np.testing.assert_array_equal(got, np.float32([[np.inf, -np.inf, np.nan, np.inf]]))


def test_a_shape_is_chosen_by_the_sizes() -> None:
    assert choose_shape(8192, 8192, 8192, 132) == ("", 1)
    assert choose_shape(1024, 1024, 512, 132) in (("", 1), ("_middle", 1))
    assert choose_shape(1, 1, 1, 132) == ("_tiny", 1)
    assert choose_shape(128, 10, 128, 132) == ("_tiny", 1)
    suffix, parts = choose_shape(64, 64, 51_200, 132)  # a weight's gradient over many steps
    assert suffix == "_tiny"
    assert parts >= 8

"""Matrix products on CUDA against float64, in every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import tile
from fastnn.kernels.cuda.half import half_word
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.matmul import cuda as matmul
from fastnn.kernels.matmul import cuda_few, cuda_product
from fastnn.kernels.matmul.cuda_half import PRODUCTS, choose_shape
from fastnn.kernels.rnn.shared import ACTIVATIONS
from fastnn.runtime.cuda import compiler
from tests.kernels.cuda.common import compute_both, compute_cuda

#: (rows, sum, columns) around the edges of the tiny tile (16 x 16, slices of 64 in the sum)
SIZES = [(1, 1, 1), (17, 65, 3), (3, 200, 18)]
OTHERS = [s for s in matmul.SHAPES if s not in ("_tiny", *matmul.UNITS)]


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def products(suffix: str, m: int, depth: int, n: int, dtype: Any, biased: bool) -> None:
    """All three products as (m, depth) @ (depth, n), each against float64."""
    a, b, bias = normal(0, m, depth), normal(1, depth, n), normal(2, n if biased else 0)
    a_t, b_t = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("linear_forward", "y", {"x": a, "w": b, "bias": bias}),
        ("linear_backward_input_unpacked", "dx", {"dy": a, "w": b_t}),
        ("linear_backward_weight", "dw", {"x": a_t, "dy": b}),
    )
    for name, out, operands in calls:
        got = compute_cuda(name + suffix, dtype, {out: (m, n)}, **operands)[out]
        within(got, a, b, operands.get("bias"), dtype)


def within(got: Any, a: Any, b: Any, bias: Any, dtype: Any, eps: float | None = None) -> None:
    """`got` is a @ b + bias, up to roundings."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    extra = bias.astype(np.float64) if bias is not None and bias.size else 0.0
    size = np.abs(a) @ np.abs(b) + np.abs(extra)
    bound = (eps or np.finfo(dtype).eps * (4 + np.sqrt(a.shape[1]))) * size
    assert (np.abs(got - (a @ b + extra)) <= bound).all()


def endings(
    suffix: str, m: int, depth: int, n: int, dtype: Any = np.float32, functions: Any = ACTIVATIONS
) -> None:
    """What a product ends with has the bits of the product, and of what would come after it.

    `functions`: the activations, of which all shapes of a product have the same code. In plain
    Python tanh and sigmoid of a whole tile take most of the time.
    """
    a, b, bias = (normal(k, *s, dtype=dtype) for k, s in enumerate([(m, depth), (depth, n), (n,)]))
    a_t, b_t = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    given = {"x": a, "w": b, "bias": bias}
    plain = compute_cuda(f"linear_forward{suffix}", dtype, {"y": (m, n)}, **given)["y"]
    back = {"dy": a, "w": b_t}
    name = "linear_backward_input"
    slope = compute_cuda(f"{name}_unpacked{suffix}", dtype, {"dx": (m, n)}, **back)["dx"]
    for activation in functions:
        number = ACTIVATIONS[activation]
        y = compute_cuda(
            f"linear_forward_activated{suffix}", dtype, {"y": (m, n)}, activation=number, **given
        )["y"]
        want = compute_cuda(f"{activation}_forward", dtype, {"y": (m, n)}, x=plain)["y"]
        np.testing.assert_array_equal(y, want)
        assert m * n < 9 or 0 < np.count_nonzero(y > 0.25) < y.size
        dx = compute_cuda(
            f"{name}_activated{suffix}", dtype, {"dx": (m, n)}, y=y, activation=number, **back
        )["dx"]
        want = compute_cuda(f"{activation}_backward", dtype, {"dx": (m, n)}, y=y, dy=slope)["dx"]
        np.testing.assert_array_equal(dx, want)
    if suffix == "_few" and depth > cuda_few.FEW:
        return  # rows of the other product are terms of the sum here
    given, name = {"x": a_t, "dy": b}, "linear_backward_weight"
    plain = compute_cuda(f"{name}{suffix}", dtype, {"dw": (m, n)}, **given)["dw"]
    got = compute_cuda(f"{name}_bias{suffix}", dtype, {"dw": (m, n), "dbias": (n,)}, **given)
    np.testing.assert_array_equal(got["dw"], plain)
    within(got["dbias"][None], np.ones((1, depth)), b, None, dtype)


@pytest.mark.parametrize(("m", "depth", "n"), [*SIZES, (16, 256, 16)])
def test_endings(m: int, depth: int, n: int) -> None:
    endings("_tiny", m, depth, n)


def test_endings_in_float64() -> None:
    endings("_tiny", 5, 31, 20, np.float64)


@pytest.mark.parametrize("suffix", OTHERS)
def test_endings_in_other_shapes(suffix: str) -> None:
    endings(suffix, 34, 35, 36, functions=["relu"])


@pytest.mark.parametrize("suffix", matmul.UNITS)
def test_endings_on_tensor_cores(suffix: str) -> None:
    """The sums of columns are of the numbers as they are."""
    endings(suffix, 20, 19, 12, functions=["relu"])


def test_a_nan_passes_through_an_ending() -> None:
    x = np.full((1, 2), np.nan, np.float32)
    given = {"x": x, "w": np.ones((2, 3)), "bias": np.zeros(0)}
    for number in ACTIVATIONS.values():
        given["activation"] = number
        y = compute_cuda("linear_forward_activated_tiny", np.float32, {"y": (1, 3)}, **given)["y"]
        assert np.isnan(y).all()


@pytest.mark.parametrize(("m", "depth", "n"), SIZES)
def test_tiny(m: int, depth: int, n: int) -> None:
    products("_tiny", m, depth, n, np.float32, biased=m % 2 == 1)


def test_float64() -> None:
    products("_tiny", 5, 31, 20, np.float64, biased=True)


@pytest.mark.parametrize("suffix", OTHERS)
@pytest.mark.parametrize(("m", "depth", "n"), [(34, 17, 36)])
def test_shapes(suffix: str, m: int, depth: int, n: int) -> None:
    products(suffix, m, depth, n, np.float32, biased=True)


@pytest.mark.parametrize("suffix", OTHERS)
def test_a_whole_tile(suffix: str) -> None:
    shape = matmul.SHAPES[suffix]
    products(suffix, shape.rows, 2 * shape.depth, shape.columns, np.float32, biased=False)


#: (rows, C, K) of products of few rows, around the edges of what threads and blocks have
FEW_SIZES = [(1, 1, 1), (3, 33, 36), (4, 131, 8), (2, 9, 133)]


@pytest.mark.parametrize(("rows", "c", "k"), FEW_SIZES)
def test_few_rows(rows: int, c: int, k: int) -> None:
    dtype = np.float64 if rows == 3 else np.float32
    x, w, dy = normal(0, rows, c, dtype=dtype), normal(1, c, k, dtype=dtype), normal(2, rows, k)
    dy, bias = dy.astype(dtype), normal(3, k, dtype=dtype)
    y = compute_cuda("linear_forward_few", dtype, {"y": (rows, k)}, x=x, w=w, bias=bias)["y"]
    within(y, x, w, bias, dtype)
    none = np.zeros(0)
    plain = compute_cuda("linear_forward_few", dtype, {"y": (rows, k)}, x=x, w=w, bias=none)["y"]
    within(plain, x, w, None, dtype)
    out, name = {"dx": (rows, c)}, "linear_backward_input_unpacked_few"
    within(compute_cuda(name, dtype, out, dy=dy, w=w)["dx"], dy, w.T, None, dtype)
    out, name = {"dw": (c, k), "dbias": (k,)}, "linear_backward_weight_bias_few"
    got = compute_cuda(name, dtype, out, x=x, dy=dy)
    within(got["dw"], x.T, dy, None, dtype)
    within(got["dbias"][None], np.ones((1, rows)), dy, None, dtype)


@pytest.mark.parametrize(("m", "depth", "n"), [(4, 3, 12)])
def test_endings_of_few_rows(m: int, depth: int, n: int) -> None:
    endings("_few", m, depth, n)


def test_a_number_of_few_rows_depends_on_its_row_and_column_alone() -> None:
    """Neighbours, and with them the grid, change no bits; nor does the way of reading weights."""
    x, w, bias = normal(0, 4, 70), normal(1, 70, 36), normal(2, 36)
    dy = normal(3, 4, 36)

    def computed(rows: slice, columns: slice) -> tuple[np.ndarray, ...]:
        a, b = (np.ascontiguousarray(v) for v in (x[rows], w[:, columns]))
        out = {"y": (len(a), b.shape[1])}
        y = compute_cuda("linear_forward_few", np.float32, out, x=a, w=b, bias=bias[columns])["y"]
        a, b = (np.ascontiguousarray(v) for v in (dy[rows], w[columns]))
        out, name = {"dx": (len(a), len(b))}, "linear_backward_input_unpacked_few"
        return y, compute_cuda(name, np.float32, out, dy=a, w=b)["dx"]

    whole = computed(slice(None), slice(None))
    for rows, columns in ((slice(2, 3), slice(None)), (slice(None), slice(3, 35))):
        for got, all_of_them in zip(computed(rows, columns), whole, strict=True):
            np.testing.assert_array_equal(got, all_of_them[rows, columns])


@pytest.mark.parametrize(("m", "depth", "n"), [(3, 21, 5)])
def test_one_group_sums_in_order(m: int, depth: int, n: int) -> None:
    """Without groups every element is the CPU's chain of multiply-adds: the same bits."""
    x, w, bias = normal(0, m, depth), normal(1, depth, n), normal(2, n)
    got = compute_cuda("linear_forward_middle", np.float32, {"y": (m, n)}, x=x, w=w, bias=bias)
    given = {"x": x, "w": w, "bias": bias}
    want = compute_both("linear_forward", np.float32, {"y": (m, n)}, factor=5, **given)
    sums = np.zeros((m, n), np.float32)
    for t in range(depth):
        sums = (x[:, t, None].astype(np.longdouble) * w[t] + sums).astype(np.float32)
    np.testing.assert_array_equal(got["y"], sums + bias)
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-4, atol=1e-5)


def in_parts(name: str, count: int, out: dict[str, Any], **operands: Any) -> dict[str, Any]:
    """A product in so many parts; the counts of its tiles are 0 again afterwards."""
    kernel = CUDA_KERNELS[name]
    m, n = next(iter(out.values()))
    out = {**out, "parts": (count, m, n)}
    if "bias_parts" in kernel.params:
        out["bias_parts"] = (count, n)
    given = {"counts": np.zeros(matmul.TILES), **operands}
    got = compute_cuda(name, np.float32, out, **given)
    assert not got["counts"].any()
    assert got["parts"].any(axis=(1, 2))[:2].all()
    return got


@pytest.mark.parametrize(("m", "depth", "n"), [(3, 150, 8), (33, 150, 20)])
def test_parts(m: int, depth: int, n: int) -> None:
    a, b, bias = normal(0, m, depth), normal(1, depth, n), normal(2, n)
    a_t, b_t = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    for count in (2, 3):
        plain: dict[str, Any] = {"activation": -1}
        out = {"y": (m, n)}
        y = in_parts("linear_forward_parts", count, out, x=a, w=b, bias=bias, **plain)["y"]
        within(y, a, b, bias, np.float32)
        out, back = {"dx": (m, n)}, "linear_backward_input_parts"
        dx = in_parts(back, count, out, dy=a, w=b_t, y=None, **plain)["dx"]
        within(dx, a, b, None, np.float32)
        out = {"dw": (m, n)}
        dw = in_parts("linear_backward_weight_parts", count, out, x=a_t, dy=b)["dw"]
        within(dw, a, b, None, np.float32)


def test_endings_of_parts() -> None:
    """The bits of the product, and of what would come after it."""
    m, depth, n = 3, 150, 8
    a, b, bias = normal(0, m, depth), normal(1, depth, n), normal(2, n)
    a_t, b_t = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    forward, back, dtype = "linear_forward_parts", "linear_backward_input_parts", np.float32
    given = {"x": a, "w": b, "bias": bias}
    plain = in_parts(forward, 2, {"y": (m, n)}, activation=-1, **given)["y"]
    backward = {"dy": a, "w": b_t}
    slope = in_parts(back, 2, {"dx": (m, n)}, y=None, activation=-1, **backward)["dx"]
    for name, number in ACTIVATIONS.items():
        y = in_parts(forward, 2, {"y": (m, n)}, activation=number, **given)["y"]
        want = compute_cuda(f"{name}_forward", dtype, {"y": (m, n)}, x=plain)["y"]
        np.testing.assert_array_equal(y, want)
        dx = in_parts(back, 2, {"dx": (m, n)}, y=y, activation=number, **backward)["dx"]
        want = compute_cuda(f"{name}_backward", dtype, {"dx": (m, n)}, y=y, dy=slope)["dx"]
        np.testing.assert_array_equal(dx, want)
    plain = in_parts("linear_backward_weight_parts", 2, {"dw": (m, n)}, x=a_t, dy=b)["dw"]
    out = {"dw": (m, n), "dbias": (n,)}
    got = in_parts("linear_backward_weight_bias_parts", 2, out, x=a_t, dy=b)
    np.testing.assert_array_equal(got["dw"], plain)
    within(got["dbias"][None], np.ones((1, depth)), b, None, dtype)


def test_tf32() -> None:
    m, depth, n = 37, 19, 12
    a, b, bias = normal(0, m, depth), normal(1, depth, n), normal(2, n)
    y = compute_cuda("linear_forward_tf32", np.float32, {"y": (m, n)}, x=a, w=b, bias=bias)["y"]
    within(y, tile.round_tf32(a), tile.round_tf32(b), bias, np.float32)
    within(y, a, b, bias, np.float32, eps=2.0**-10)
    with pytest.raises(AssertionError):
        within(y, a, b, bias, np.float32)


def test_three_products_of_parts_have_float32s_accuracy() -> None:
    """All three products; with each factor nearly in the middle between two TF32 numbers, too."""
    products("_tf32x3", 37, 40, 12, np.float32, biased=True)
    a = (1 + 2.0**-11 - 2.0**-23) * np.ones((3, 24), np.float32)
    for sign in (1, -1):
        b = np.ascontiguousarray(a.T * np.float32(sign))[:, :2]
        given = {"x": a, "w": b, "bias": np.zeros(0)}
        y = compute_cuda("linear_forward_tf32x3", np.float32, {"y": (3, 2)}, **given)["y"]
        within(y, a, b, None, np.float32, eps=2.0**-21)  # what is left out has one sign
        y = compute_cuda("linear_forward_tf32", np.float32, {"y": (3, 2)}, **given)["y"]
        with pytest.raises(AssertionError):
            within(y, a, b, None, np.float32, eps=2.0**-21)


def test_round_tf32() -> None:
    x = np.array([1.0, 1.0 + 2.0**-11, -1.0 - 2.0**-11, 1.0 + 2.0**-12, np.inf, 0.0], np.float32)
    want = [1.0, 1.0 + 2.0**-10, -1.0 - 2.0**-10, 1.0, np.inf, 0.0]
    np.testing.assert_array_equal(tile.round_tf32(x), np.array(want, np.float32))
    assert np.isnan(tile.round_tf32(np.array([np.nan])))


def test_infinity_in_a_product_stays_in_its_row() -> None:
    x = np.ones((2, 3), np.float32)
    x[0, 1] = np.inf
    given = {"x": x, "w": np.zeros((3, 4)), "bias": np.zeros(0)}
    y = compute_cuda("linear_forward_tiny", np.float32, {"y": (2, 4)}, **given)["y"]
    assert np.isnan(y[0]).all()
    assert not y[1].any()


def test_shapes_fit_the_device() -> None:
    for name, kernel in CUDA_KERNELS.items():
        if name.startswith("linear_") and not name.endswith("_few"):
            sizes = dict.fromkeys("NCKBS", 100)
            assert kernel.shared is not None
            grid, threads = kernel.launch(sizes)
            assert threads in (128, 256)
            # two blocks share a multiprocessor's 227 KiB in float32, one fits in float64
            assert 4 * kernel.shared(sizes) <= 96 << 10, name
            assert len(grid) == 3


@pytest.mark.parametrize("product", matmul.PARTS)
def test_a_grid_takes_all_tiles_of_a_product(product: str) -> None:
    """Also of millions of columns, or of rows: but its first dimension it ends at 65,535."""
    million = 1_000_000
    letters = {"linear_forward": "NKC", "linear_backward_weight": "CKN"}.get(product, "NCK")
    for sizes in (
        (8, 3 * million, 16), (3, 3 * million, 200), (3 * million, 8, 4), (3 * million, 8, 99),
        (9, 50 * million, 9),
    ):  # fmt: skip
        choice = matmul.choose_product(product, *sizes)
        name = matmul.SPLIT[product] if choice.parts > 1 else product + choice.suffix
        half = choose_shape(*sizes, 132)
        known = dict(zip(letters, sizes, strict=True))
        kernels = [(name, choice.parts), (half_name(product, half), half.parts)]
        for kernel, parts in kernels:
            found = compiler.launch_of(CUDA_KERNELS[kernel], {**known, "S": parts}, "float32")
            assert max(found.grid[1:]) <= 65_535, (kernel, sizes)
            assert kernel.endswith("_few") or np.prod(found.grid) * 128 * 128 >= sizes[0] * sizes[1]
    for name in ("matmul_forward", "matmul_backward_b_bf16"):
        known = {"P": 70_000, "M": 9, "C": 9, "K": 50 * million}
        grid = compiler.launch_of(CUDA_KERNELS[name], known, "float32").grid
        assert max(grid[1:]) <= 65_535


def test_tiles_beyond_a_grids_second_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on in the third, beside pairs of matrices; the bits are the same."""

    def found() -> list[np.ndarray]:
        a, b, none = normal(0, 3, 5), normal(1, 5, 70), np.zeros(0)
        halves = {"x": half_word(a, 1), "w": half_word(b, 1), "y_half": None, "activation": -1}
        calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("linear_backward_weight_bias_middle", {"dw": (5, 70), "dbias": (70,)},
             {"x": a, "dy": normal(5, 3, 70)}),
            ("linear_forward_bf16_middle", {"y": (3, 70)}, {**halves, "bias": none}),
            ("matmul_forward", {"y": (2, 4, 70)},
             {"a": normal(3, 2, 4, 5), "b": normal(2, 2, 5, 70)}),
        ]  # fmt: skip
        return [
            value
            for name, out, operands in calls
            for value in compute_cuda(name, np.float32, out, **operands).values()
        ]

    before = found()
    monkeypatch.setattr(cuda_product, "MOST", 1)
    for one, other in zip(before, found(), strict=True):
        np.testing.assert_array_equal(one, other)


def half_name(product: str, choice: matmul.Choice) -> str:
    suffix = "_parts" if choice.parts > 1 else choice.suffix
    return f"{PRODUCTS[product].name}_bf16{suffix}"

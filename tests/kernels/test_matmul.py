"""Matrix products against float64, and bit for bit against sequential multiply-adds."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastnn.kernels import simd
from fastnn.kernels.control_block import LENGTH, WORKERS
from fastnn.kernels.cpu import target, tile
from fastnn.kernels.declare import KERNELS
from fastnn.kernels.matmul import cpu as matmul
from fastnn.kernels.matmul import cpu_blocked as matmul_blocked
from fastnn.kernels.matmul import cpu_columns as matmul_columns
from fastnn.kernels.matmul import cpu_own as matmul_own
from fastnn.kernels.matmul import cpu_turned as matmul_turned
from fastnn.runtime.cpu import codegen
from fastnn.testing.kernels import call

SIZES = (1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 129)
SHAPES = [
    *((n, 17, 33) for n in SIZES),
    *((5, c, 49) for c in SIZES),
    *((9, 16, k) for k in SIZES),
    *((n, c, k) for n in (1, 2, 3, 4) for c, k in ((128, 10), (31, 129), (300, 127))),
    (70, 300, 100), (197, 259, 61), (33, 784, 128), (1100, 7, 21),
]  # fmt: skip
TYPES = ("float32", "float64")
NONE: dict[str, np.ndarray] = {t: np.empty(0, t) for t in TYPES}
#: a control block that says that two workers run
TWO = np.array([2 * (k == WORKERS) for k in range(LENGTH)])
NARROWER = [bits for bits in (128, 256) if bits < target.host().vector_bits]


def normal(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def poisoned(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """An array of NaN that lies between two zones of 1e30, and the array of both zones."""
    size = int(np.prod(shape))
    whole = np.full(size + 128, 1e30, dtype)
    inner = whole[64 : 64 + size].reshape(shape)
    inner[...] = np.nan
    return inner, whole


def run(
    kernel: Any, cuts: tuple[int, ...] = (), *, out: str, shape: tuple[int, ...], **inputs: Any
) -> np.ndarray:
    """The kernel's output, computed in the ranges that `cuts` divide the items into."""
    dtype = next(iter(inputs.values())).dtype.name
    result, whole = poisoned(shape, dtype)
    items = shape[-1] if kernel.arrays[out].axis == "cols" else shape[0]
    edges = [0, *sorted({c for c in cuts if 0 < c < items}), items]
    for lo, hi in itertools.pairwise(edges):
        call(kernel, lo, hi, **inputs, **{out: result})
    assert (whole[:64] == whole[0]).all()
    assert (whole[-64:] == whole[0]).all()
    return result


def packed(a: np.ndarray, transposed: bool = False) -> np.ndarray:
    """`a` (or `a` transposed) in panels, checked against NumPy."""
    kernel = matmul.pack_panels_transposed if transposed else matmul.pack_panels
    b = a.T if transposed else a
    shape = matmul.packed_shape(*b.shape, a.itemsize)
    width = tile.panel_width(a.itemsize)
    padded = np.zeros((b.shape[0], shape[0] * width), a.dtype)
    padded[:, : b.shape[1]] = b
    expected = padded.reshape(b.shape[0], -1, width).swapaxes(0, 1).reshape(shape)
    result = run(kernel, (1,), out="packed", shape=shape, w=a)
    assert np.array_equal(result, expected)
    return result


def scratch(n: int, dtype: str, columns: int = 192) -> np.ndarray:
    """Scratch memory so small that even small weights make several blocks."""
    return np.full((n, columns), np.nan, dtype)


def products(n: int, c: int, k: int, dtype: str, cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    """Every kernel's result: name -> (result, float64 result, sum of magnitudes, operands)."""
    x, w, dy = normal(0, (n, c), dtype), normal(1, (c, k), dtype), normal(2, (n, k), dtype)
    bias = normal(3, (k,), dtype)
    forward = {"out": "y", "shape": (n, k), "x": x, "bias": bias}
    back = {"out": "dx", "shape": (n, c), "dy": dy}
    weight = {"out": "dw", "shape": (c, k)}
    results = {
        "forward": run(matmul.linear_forward, cuts, w=w, **forward),
        "forward_columns": run(matmul.linear_forward_columns, cuts, w=w, **forward),
        "forward_taking": run(matmul.linear_forward_taking, cuts, w=w, control=TWO, **forward),
        "forward_blocked": run(matmul_blocked.linear_forward_blocked, cuts, w=w,
                               scratch=scratch(n, dtype), **forward),
        "input": run(matmul.linear_backward_input, cuts, w_packed=packed(w, True), **back),
        "input_blocked": run(matmul_blocked.linear_backward_input_blocked, cuts, w=w,
                             scratch=scratch(n, dtype), **back),
        "input_turned": run(matmul_turned.linear_backward_input_turned, cuts, w=w,
                            scratch=scratch(n, dtype, matmul_turned.turned_columns(k)), **back),
        "input_turned_columns": run(
            matmul_columns.linear_backward_input_turned_columns, cuts, w=w,
            scratch=scratch(c, dtype, matmul_columns.columns_scratch(n, k)), **back),
        "input_blocked_columns": run(
            matmul_columns.linear_backward_input_blocked_columns, cuts, w=w,
            scratch=scratch(c, dtype, matmul_columns.BLOCK_COLUMNS), **back),
        "input_unpacked": run(matmul.linear_backward_input_unpacked, cuts, w=w, **back),
        "weight": run(matmul.linear_backward_weight, cuts, x=x, dy=dy, **weight),
        "weight_own": run(matmul_own.linear_backward_weight_own, cuts, x=x, dy=dy,
                          scratch=scratch(c, dtype, matmul_own.own_scratch(n)), **weight),
    }  # fmt: skip
    operands = {"forward": (x, w, bias), "input": (dy, w.T, None), "weight": (x.T, dy, None)}
    return {name: (result, *operands[name.split("_")[0]]) for name, result in results.items()}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("n", "c", "k"), SHAPES)
def test_agrees_with_float64(n: int, c: int, k: int, dtype: str) -> None:
    for name, (result, a, b, bias) in products(n, c, k, dtype).items():
        expected = a.astype(float) @ b.astype(float) + (0.0 if bias is None else bias)
        size = np.abs(a).astype(float) @ np.abs(b) + (0.0 if bias is None else np.abs(bias))
        bound = np.finfo(dtype).eps * (4 + np.sqrt(a.shape[1])) * size
        assert (np.abs(result - expected) <= bound).all(), name


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("n", "c", "k"), [(1, 40, 70), (13, 50, 90), (70, 300, 53), (35, 7, 3)])
def test_any_split_gives_the_same_bits(n: int, c: int, k: int, dtype: str) -> None:
    whole = products(n, c, k, dtype)
    for cuts in (tuple(range(300)), (1, 4, 12), (3, 5, 10, 11, 50), (8, 16, 64)):
        for name, (result, *_) in products(n, c, k, dtype, cuts).items():
            assert np.array_equal(result, whole[name][0]), (name, cuts)


def in_order(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """A @ B + bias by fused multiply-adds in the order of the summed index, float32 only.

    A product of float32 numbers is exact in float64; its sum with a float32 number is rounded to
    80 bits and then to float32 here, as good as always the same as rounding once.
    """
    sums = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for t in range(a.shape[1]):
        exact = a[:, t, None].astype(np.longdouble) * b[t].astype(np.longdouble)
        sums = (exact + sums).astype(np.float32)
    return sums if bias is None else sums + bias


@pytest.mark.skipif(not target.host().has_fma, reason="without FMA products are rounded")
@pytest.mark.parametrize(
    ("n", "c", "k"), [(1, 300, 130), (2, 16, 65), (3, 129, 15), (13, 300, 50), (40, 5, 97)]
)
def test_bits_of_sequential_multiply_adds(n: int, c: int, k: int) -> None:
    for name, (result, a, b, bias) in products(n, c, k, "float32").items():
        if name != "input_unpacked":
            assert np.array_equal(result, in_order(a, b, bias)), name


@pytest.mark.parametrize("dtype", TYPES)
def test_python_twin_gives_the_same_bits(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(A vector has as many lanes as the compiled code's: panels are made of such.)"""
    lanes = {size: target.host().lanes(size) for size in simd.TWIN_LANES}
    monkeypatch.setattr(simd, "TWIN_LANES", lanes)
    if not target.host().has_fma:
        pytest.skip("without FMA products are rounded")
    n, c, k = 5, 19, 21
    x, w, bias = normal(0, (n, c), dtype), normal(1, (c, k), dtype), normal(2, (k,), dtype)
    dy = normal(3, (n, k), dtype)
    for kernel, operands, out, shape in (
        (matmul.linear_forward, {"x": x, "w": w, "bias": bias}, "y", (n, k)),
        (matmul.linear_forward, {"x": x, "w": w, "bias": NONE[dtype]}, "y", (n, k)),
        (
            matmul.linear_forward_taking,
            {"x": x, "w": w, "bias": bias, "control": TWO},
            "y",
            (n, k),
        ),
        (matmul.linear_backward_weight, {"x": x, "dy": dy}, "dw", (c, k)),
        (matmul.linear_backward_input, {"dy": dy, "w_packed": packed(w, True)}, "dx", (n, c)),
        (
            matmul_turned.linear_backward_input_turned,
            {"dy": dy, "w": w, "scratch": scratch(n, dtype, matmul_turned.turned_columns(k))},
            "dx",
            (n, c),
        ),
        *(
            (kernel, {"dy": dy, "w": w, "scratch": scratch(c, dtype, columns)}, "dx", (n, c))
            for kernel, columns in (
                (
                    matmul_columns.linear_backward_input_turned_columns,
                    matmul_columns.columns_scratch(n, k),
                ),
                (matmul_columns.linear_backward_input_blocked_columns, 64),
            )
        ),
        (
            matmul_own.linear_backward_weight_own,
            {"x": x, "dy": dy, "scratch": scratch(c, dtype, matmul_own.own_scratch(n))},
            "dw",
            (c, k),
        ),
        (matmul.pack_panels_transposed, {"w": w}, "packed", packed(w, True).shape),
    ):
        compiled = run(kernel, out=out, shape=shape, **operands)
        plain = np.full(shape, np.nan, dtype)
        items = shape[-1] if kernel.arrays[out].axis == "cols" else shape[0]
        kernel(**operands, **{out: plain}, lo=0, hi=items)
        exact = dtype == "float32" or kernel is matmul.pack_panels_transposed
        # in float64 the twin rounds a product to 80 bits before it adds
        assert np.allclose(compiled, plain, rtol=0 if exact else 1e-14, atol=0 if exact else 1e-14)


@pytest.mark.skipif(not target.host().has_fma, reason="without FMA products are rounded")
@pytest.mark.parametrize("rows", [4, 7, 8, 13, 29])
def test_bits_by_width(rows: int) -> None:
    """The last columns have tiles of their own, up to a vector's and from two to three."""
    one = target.host().lanes(4)
    for k in (*range(1, 3 * one + 2), 4 * one + 1, 5 * one - 1, 5 * one):
        for name, (result, a, b, bias) in products(rows, 6, k, "float32", (3, 20)).items():
            if name != "input_unpacked":
                assert np.array_equal(result, in_order(a, b, bias)), (name, k)
        for name, (result, a, b, bias) in products(rows, k, 6, "float32").items():
            if name != "input_unpacked":
                assert np.array_equal(result, in_order(a, b, bias)), (name, k)


def test_no_bias_is_no_addition() -> None:
    x, w = -normal(0, (3, 1), "float32"), np.zeros((1, 20), "float32")
    y = run(matmul.linear_forward, out="y", shape=(3, 20), x=x, w=w, bias=NONE["float32"])
    assert np.array_equal(y, np.zeros((3, 20)))
    x = np.full((2, 5), np.inf, "float32")
    y = run(matmul.linear_forward, out="y", shape=(2, 20), x=x, w=np.zeros((5, 20), "float32"),
            bias=NONE["float32"])  # fmt: skip
    assert np.isnan(y).all()


def test_large_products_prefetch_nothing_but_time() -> None:
    """Sizes past the limits of prefetching and of blocks, with few and with many rows."""
    for n in (1, 3, 9, 40):
        x, w = normal(0, (n, 700), "float32"), normal(1, (700, 800), "float32")
        shared = {"out": "y", "shape": (n, 800), "x": x, "bias": NONE["float32"], "w": w}
        plain = run(matmul.linear_forward, **shared)
        room = scratch(n, "float32", matmul_blocked.scratch_columns(n, 4))
        blocked = run(matmul_blocked.linear_forward_blocked, (5,), scratch=room, **shared)
        assert np.array_equal(plain, blocked)
        size = np.abs(x).astype(float) @ np.abs(w)
        assert (np.abs(plain - x.astype(float) @ w) <= 3e-6 * size).all()


def test_choice_names_kernels() -> None:
    for n in (1, 4, 32, 300):
        for size in (10, 256, 1024):
            for name in matmul.choose_linear(n, size, size, workers=2):
                assert name in KERNELS


@pytest.mark.parametrize("bits", [256, 512])
def test_rows_that_share_sets_of_a_small_cache_are_packed(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = dataclasses.replace(target.host(), vector_bits=bits)
    monkeypatch.setattr(target, "host", lambda: narrow)
    packed = "linear_forward_blocked" if bits == 256 else "linear_forward"
    for n, c, k, itemsize, wanted in (
        (64, 512, 512, 4, packed), (64, 128, 256, 8, packed), (63, 512, 512, 4, "linear_forward"),
        (64, 127, 512, 4, "linear_forward"), (64, 500, 500, 4, "linear_forward"),
        (64, 1024, 1024, 4, "linear_forward_blocked"),
    ):  # fmt: skip
        assert matmul.choose_linear(n, c, k, itemsize).forward == wanted
    gradient, small = "linear_backward_weight", bits == 256
    for n, c, k, many in ((512, 64, 256, small), (511, 64, 256, False), (512, 784, 63, False),
                          (512, 64, 64, False), (16, 512, 512, True), (256, 256, 256, small),
                          (255, 256, 256, False), (256, 128, 256, False)):  # fmt: skip
        wanted = gradient + "_own" * many
        assert matmul.choose_linear(n, c, k).backward_weight == wanted, (n, c, k)


@pytest.mark.parametrize("bits", NARROWER)
def test_narrower_vectors(bits: int) -> None:
    """The same bits from 128- and 256-bit code (these widths are read once a process)."""
    code = (
        "import importlib.util, numpy as np, sys\n"
        f"spec = importlib.util.spec_from_file_location('t', {__file__!r})\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "out = {}\n"
        "for shape in ((3, 19, 21), (13, 130, 37), (2, 9, 2)):\n"
        "    for name, r in t.products(*shape, 'float32').items():\n"
        "        if name != 'input_unpacked': out[f'{name}{shape}'] = r[0]\n"
        "    t.test_agrees_with_float64(*shape, 'float64')\n"
        "    t.test_any_split_gives_the_same_bits(*shape, 'float32')\n"
        "np.savez(sys.stdout.buffer, **out)\n"
    )
    environment = {**os.environ, "FASTNN_VECTOR_BITS": str(bits)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    narrow = np.load(io.BytesIO(done.stdout))
    for shape in ((3, 19, 21), (13, 130, 37), (2, 9, 2)):
        for name, (result, *_) in products(*shape, "float32").items():
            if name != "input_unpacked":
                assert np.array_equal(narrow[f"{name}{shape}"], result), (name, shape)


@pytest.mark.skipif(target.host().name not in ("AVX-512", "AVX2"), reason="reads AVX code")
@pytest.mark.parametrize("dtype", TYPES)
def test_inner_loop_is_pure_vector_code(dtype: str) -> None:
    """The main tile's loop: all its multiply-adds, no call, no vector on the stack. Of 8 rows,
    up to three distances of what is fetched ahead lie there: all other registers are taken."""
    host = target.host()
    rows, vectors = tile.shapes()[tile.MAIN]
    kind = f"v{host.lanes(np.dtype(dtype).itemsize)}f{8 * np.dtype(dtype).itemsize}"
    text = codegen.assembly(matmul.linear_forward, dtype)
    body = text.split(f"fastnn_tile_{kind}_{rows}x{vectors}:\n", 1)[1].split(".Lfunc_end", 1)[0]
    blocks = re.split(r"^(\.LBB\w+):", body, flags=re.M)
    loops = [
        code
        for label, code in zip(blocks[1::2], blocks[2::2], strict=True)
        if re.search(rf"\tj\w+\t{re.escape(label)}$", code, flags=re.M)
    ]
    register = "zmm" if host.vector_bits == 512 else "ymm"
    (loop,) = loops
    assert len(re.findall(rf"vfmadd\w+.*%{register}", loop)) % (rows * vectors) == 0
    assert len(re.findall("vfmadd", loop)) >= rows * vectors
    assert "call" not in loop
    on_stack = [line for line in loop.splitlines() if "rsp" in line]
    assert len(on_stack) <= (3 if host.registers == 32 else 0)
    assert all(re.fullmatch(r"\tmovq\t-?\d+\(%rsp\), %r\w+", line) for line in on_stack)

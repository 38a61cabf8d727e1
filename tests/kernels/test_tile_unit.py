"""Products of bfloat16 parts, on the CPU's tile unit where there is one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cpu import target, tile_unit
from fastnn.kernels.declare import Kernel
from fastnn.kernels.matmul import cpu_unit
from fastnn.testing.kernels import call

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
#: edges of tiles (16 x 32), of panels (64 columns) and of blocks of the depth (512)
SHAPES = [(1, 1, 1), (3, 17, 5), (16, 32, 16), (17, 33, 65), (32, 64, 64), (40, 15, 200)]
LARGE = [(70, 530, 130), (33, 1100, 70), (200, 40, 300)]
#: what its parts may lose of a factor of 1: half a unit in the last of their 8 bits; three parts
#: lose nothing, but the products that are left out are as large as this
LOST = {1: 2.0**-8, 2: 2.0**-16, 3: 2.0**-24}


def normal(*shape: int) -> np.ndarray:
    """Numbers of very different sizes."""
    return (RNG.normal(size=shape) * np.exp(RNG.normal(size=shape))).astype(np.float32)


def bound(a: np.ndarray, b: np.ndarray, parts: int) -> np.ndarray:
    """What a product of parts may be off by: what the parts lose, and float32's sums.

    What is lost of either factor, and products of parts that are left out: 2, 3 and 2 times `LOST`,
    and much smaller ones. A tile's chains have 16 steps; then come a sum of two chains, and one for
    each product of each tile of the depth. AVX-512-BF16 has one chain.
    """
    magnitude = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    tiles = -(-a.shape[1] // 32)
    sums = min(a.shape[1], 16) + 1 + tiles * len(tile_unit.PRODUCTS[parts])
    if parts == 1 and target.host().pairs:
        sums = a.shape[1]
    return ((1.02 + parts) * LOST[parts] + sums * 2.0**-24) * magnitude + 1e-35


def run(kernel: Kernel, out: str, shape: tuple[int, ...], scratch: int, cuts: Any = (),
        compiled: bool = True, **operands: Any) -> np.ndarray:  # fmt: skip
    """A kernel's result, computed in ranges that end at `cuts`."""
    buffer = np.full(int(np.prod(shape)) + 128, np.float32(np.nan))
    operands[out] = buffer[64:-64].reshape(shape)
    items = shape[0]
    if scratch:
        operands["scratch"] = np.full((items, scratch), np.nan, np.float32)
    for lo, hi in pairwise([0, *(c for c in cuts if c < items), items]):
        if compiled:
            call(kernel, lo, hi, **operands)
        else:
            kernel(**operands, lo=lo, hi=hi)
    assert np.isnan(buffer[:64]).all()
    assert np.isnan(buffer[-64:]).all()
    return operands[out]


def products(
    n: int, c: int, k: int, parts: int, seed: int = 0, **more: Any
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each kernel its result, the two factors and the bias."""
    global RNG
    RNG = np.random.default_rng(seed)
    x, w, dy, bias = normal(n, c), normal(c, k), normal(n, k), normal(k)
    none = np.zeros(0, np.float32)
    for given in (bias, none):
        y = run(cpu_unit.linear_forward_unit, "y", (n, k), cpu_unit.product_scratch(c, parts),
                x=x, w=w, bias=given, parts=parts, **more)  # fmt: skip
        yield y, x, w, given
    dx = run(cpu_unit.linear_backward_input_unit, "dx", (n, c), cpu_unit.product_scratch(k, parts),
             dy=dy, w=w, parts=parts, **more)  # fmt: skip
    yield dx, dy, np.ascontiguousarray(w.T), none
    shape = cpu_unit.unit_shape(n, k, parts)
    packed = run(cpu_unit.pack_unit, "packed", shape, 0, w=dy, parts=parts, **more)
    dw = run(cpu_unit.linear_backward_weight_unit, "dw", (c, k),
             cpu_unit.gradient_scratch(n, parts), x=x, dy_packed=packed, parts=parts,
             **more)  # fmt: skip
    yield dw, np.ascontiguousarray(x.T), dy, none


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_agrees_with_float64(shape: tuple[int, int, int], parts: int) -> None:
    for got, a, b, bias in products(*shape, parts):
        exact = a.astype(np.float64) @ b.astype(np.float64)
        limit = bound(a, b, parts)
        if bias.size:
            exact, limit = exact + bias, limit + 2.0**-23 * (np.abs(exact) + np.abs(bias))
        assert (np.abs(got - exact) <= limit).all()


def test_each_part_counts() -> None:
    """Two parts are a hundred times as exact as one, three as exact as float32's own sums."""
    found = []
    for parts in (1, 2, 3):
        got, a, b, _ = list(products(64, 200, 80, parts))[1]
        exact = a.astype(np.float64) @ b.astype(np.float64)
        found.append(np.abs(got - exact).max() / np.abs(exact).max())
    own = np.abs(a @ b - exact).max() / np.abs(exact).max()
    assert found[1] < found[0] / 100
    assert found[2] < found[1] / 10
    assert found[2] < 4 * own


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("cuts", [(1, 2, 3, 30), (16, 32, 64), (5, 21, 22, 60), range(1, 300)])
def test_any_split_gives_the_same_bits(cuts: Any, parts: int) -> None:
    for shape in [(3, 17, 5), (70, 530, 130)]:
        whole, pieces = products(*shape, parts), products(*shape, parts, cuts=cuts)
        for (one, *_), (other, *_) in zip(whole, pieces, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_plain_python_has_the_same_bits(shape: tuple[int, int, int], parts: int) -> None:
    compiled, plain = products(*shape, parts), products(*shape, parts, compiled=False)
    for (one, *_), (other, *_) in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_parts_add_up() -> None:
    """Three parts are the number itself; each is the nearest bfloat16 to what is left."""
    x = normal(16, 32)
    packed = np.full((1, 3 * 1024), np.nan, np.float32)
    call(cpu_unit.pack_unit_transposed, w=x, packed=packed, parts=3)
    words = packed.view(np.uint32).reshape(3, 4, 16, 16)
    assert not words[:, 1:].any()  # columns that there are not
    low, high = (words[:, 0] << 16).view(np.float32), (words[:, 0] & 0xFFFF0000).view(np.float32)
    cut = np.stack([low, high], 2).reshape(3, 32, 16).swapaxes(1, 2)
    np.testing.assert_array_equal(cut.sum(0, dtype=np.float64), x)
    assert (np.abs(x - cut[0]) <= 2.0**-8 * np.abs(cut[0])).all()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_numbers_that_are_not_finite_stay_so(special: float, parts: int) -> None:
    """In the sums they are in, and in no other."""
    x, w = np.ones((20, 40), np.float32), np.ones((40, 70), np.float32)
    x[7, 33] = special
    y = run(cpu_unit.linear_forward_unit, "y", (20, 70), cpu_unit.product_scratch(40, parts),
            x=x, w=w, bias=np.zeros(0, np.float32), parts=parts)  # fmt: skip
    assert not np.isfinite(y[7]).any()
    np.testing.assert_array_equal(np.delete(y, 7, 0), 40)


def fingerprint() -> str:
    """Hash of all results."""
    digest = hashlib.sha256()
    for shape in SHAPES + LARGE:
        for parts in (1, 2, 3):
            for got, *_ in products(*shape, parts):
                digest.update(got.tobytes())
    return digest.hexdigest()


@pytest.mark.skipif(not target.host().tile_unit, reason="this CPU has no tile unit")
def test_multiply_adds_have_the_units_bits() -> None:
    """What CPUs without the unit compute, to the last bit."""
    program = (
        "import runpy; from fastnn.kernels.cpu import target; assert not target.host().tile_unit; "
        f"print(runpy.run_path({str(Path(__file__))!r})['fingerprint']())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "FASTNN_TILE_UNIT": "0"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == fingerprint()


def test_in_threads_and_forked_processes() -> None:
    """Each thread has the unit's registers for itself; a forked child may use them, too."""
    wanted = [got.tobytes() for got, *_ in products(70, 530, 130, 2)]
    bad: list[str] = []

    def again(then: Callable[[], None] = lambda: None) -> None:
        for (got, *_), want in zip(products_alike(), wanted, strict=True):
            if got.tobytes() != want:
                bad.append("differs")

    def products_alike() -> Any:
        return list(products(70, 530, 130, 2))

    threads = [threading.Thread(target=again) for _ in range(1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad
    child = os.fork()
    if child == 0:
        again()
        os._exit(len(bad))
    assert os.waitpid(child, 0)[1] == 0

"""Products of one part by AVX-512-BF16, where a CPU has it and no tile unit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fastnn.kernels.cpu import target, tile_unit
from fastnn.kernels.matmul import cpu_unit
from tests.kernels.test_tile_unit import run

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
NONE = np.zeros(0, np.float32)
#: the smallest normal number of float32
TINY = Fraction(2) ** -126
on_pairs = pytest.mark.skipif(
    not target.host().pairs, reason="this CPU has a tile unit, or no AVX-512-BF16"
)


def rounded(exact: Fraction) -> float:
    """The nearest number of 24 bits, ties to even; 0 below the normal ones."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - 24
    while size / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    near = round(size / Fraction(2) ** exponent) * Fraction(2) ** exponent
    return (1 if exact > 0 else -1) * (0.0 if near < TINY else float(near))


def words_of(odd: np.ndarray, even: np.ndarray) -> np.ndarray:
    """Words of bfloat16 numbers, the odd ones in the upper half."""
    return odd.view(np.uint32) | even.view(np.uint32) >> 16


def small_numbers(count: int, low: int, high: int) -> np.ndarray:
    """bfloat16 numbers with 2^low to 2^high."""
    mantissas = RNG.integers(128, 256, count) / 128 * RNG.choice([-1, 1], count)
    return np.ldexp(mantissas, RNG.integers(low, high, count)).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(-3, 3), (-20, 20), (-70, -60), (-80, -55)])
def test_a_pair_adds_its_odd_product_first(low: int, high: int) -> None:
    """Each product and sum rounded at once, by exact arithmetic; near the subnormal ones, too."""
    a1, a0, b1, b0 = (small_numbers(300, low, high) for _ in range(4))
    sums = np.ldexp(RNG.normal(size=300), RNG.integers(2 * low, 2 * high, 300)).astype(np.float32)
    sums[np.abs(sums) < float(TINY)] = 0
    got = tile_unit._add_pair(sums, words_of(a1, a0), words_of(b1, b0))
    for k, number in enumerate(got):
        want = float(sums[k])
        for a, b in ((a1, b1), (a0, b0)):
            want = rounded(Fraction(float(a[k])) * Fraction(float(b[k])) + Fraction(want))
        assert float(number) == want


@pytest.mark.parametrize("part", ["odd", "even"])
def test_subnormal_numbers_count_as_zero(part: str) -> None:
    one, none = np.ones(3, np.float32), np.zeros(3, np.float32)
    tiny = np.array([1e-40, -1e-40, 1.1e-38], np.float32)
    tiny = (tiny.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    large = np.full(3, np.float32(2.0**100))
    words = [words_of(x, none) if part == "odd" else words_of(none, x) for x in (tiny, large)]
    np.testing.assert_array_equal(tile_unit._add_pair(one, *words), one)
    np.testing.assert_array_equal(tile_unit._add_pair(tiny, *2 * [words_of(none, none)]), none)


def specials(shape: tuple[int, int], finite: bool) -> np.ndarray:
    """Numbers of all sizes, zeros, subnormal ones, and where not `finite` infinity and NaN."""
    pool = [
        *small_numbers(60, -80, -50), *RNG.normal(size=60), 0.0, -0.0, 1e-40, -1e-40, 2.0**-126,
        2.0**-63, -(2.0**-63), 2.0**-75, -(2.0**-75), 1.0, -1.0, 3e18, 3.3e38, -3.3e38,
    ]  # fmt: skip
    rare = [] if finite else [np.inf, -np.inf, np.nan, 3.4e38]
    x = RNG.choice(np.array(pool, np.float32), shape)
    for number in rare:
        x[RNG.integers(shape[0]), RNG.integers(shape[1])] = number
    return x


def forward(x: np.ndarray, w: np.ndarray, compiled: bool) -> np.ndarray:
    (n, c), k = x.shape, w.shape[1]
    with np.errstate(all="ignore"):
        return run(
            cpu_unit.linear_forward_unit, "y", (n, k), cpu_unit.product_scratch(c, 1), x=x, w=w,
            bias=NONE, parts=1, compiled=compiled,
        )  # fmt: skip


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all bits are equal but those that tell one NaN from another."""
    number = ~np.isnan(other)
    return bool(
        np.array_equal(np.isnan(one), ~number)
        and np.array_equal(one[number].view(np.int32), other[number].view(np.int32))
    )


@on_pairs
@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize(
    ("n", "c", "k"),
    [(1, 1, 1), (1, 7, 100), (9, 3, 1), (8, 2, 32), (17, 33, 65), (23, 31, 47), (40, 6, 130)],
)
def test_the_instruction_does_what_plain_python_does(n: int, c: int, k: int, finite: bool) -> None:
    for _ in range(5):
        x, w = specials((n, c), finite), specials((c, k), finite)
        assert same(forward(x, w, True), forward(x, w, False))


@on_pairs
def test_a_sum_goes_on_where_a_block_of_the_depth_ends() -> None:
    """One chain for any depth: so the first rows of a deep product tell of a shallow one."""
    c = 2 * cpu_unit.DEEP + 5
    x, w = RNG.normal(size=(5, c)).astype(np.float32), RNG.normal(size=(c, 40)).astype(np.float32)
    sums = np.zeros((5, 40), np.float32)
    padded = [np.pad(tile_unit._round(f), ((0, 0), (0, 1))) for f in (x, w.T)]
    left, right = (f[:, 0::2] >> 16 | f[:, 1::2] for f in padded)
    for k in range(left.shape[1]):
        sums = tile_unit._add_pair(sums, left[:, k, None], right[None, :, k])
    assert same(forward(x, w, True), sums)


@on_pairs
def test_without_it_one_part_is_summed_as_on_the_unit() -> None:
    """`FASTNN_TILE_UNIT=0`: other bits, by multiply-adds, which plain Python computes as well."""
    x, w = RNG.normal(size=(6, 70)).astype(np.float32), RNG.normal(size=(70, 33)).astype(np.float32)
    program = (
        "import sys, numpy as np; from fastnn.kernels.cpu import target, tile_unit\n"
        "assert not target.host().pairs and tile_unit.most_parts() == 0\n"
        "from tests.kernels.test_unit_pairs import forward\n"
        f"x, w = (np.frombuffer(bytes.fromhex(t), np.float32).reshape(s) for t, s in "
        f"zip(sys.argv[1:], {[x.shape, w.shape]}))\n"
        "one, other = (forward(x, w, compiled) for compiled in (True, False))\n"
        "assert one.tobytes() == other.tobytes(); print(one.tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, x.tobytes().hex(), w.tobytes().hex()], cwd=ROOT,
        env={**os.environ, "FASTNN_TILE_UNIT": "0"}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(bytes.fromhex(done.stdout.strip()), np.float32).reshape(6, 33)
    own = forward(x, w, True)
    assert not np.array_equal(found, own)
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-5 * np.abs(own).max())


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_more_than_one_part_is_for_the_unit(
    monkeypatch: pytest.MonkeyPatch, unit: bool, pairs: bool
) -> None:
    host = replace(target.host(), tile_unit=unit, pairs=pairs and not unit)
    monkeypatch.setattr(target, "host", lambda: host)
    monkeypatch.setattr(tile_unit, "usable", lambda: unit)
    assert tile_unit.most_parts() == (3 if unit else int(pairs))

"""Philox and what is made of it: reference values, statistics, independence of split and width."""

import numpy as np
import pytest

from fastnn.kernels.control_block import LENGTH, SEED, STEP
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.kernels.random import cpu as random
from fastnn.kernels.simd import shift_right, store, to_float
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, SHAPES, compute

ONES = 0xFFFFFFFF
#: counter, key, words: Random123's kat_vectors (Salmon et al. 2011)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def control_of(seed=1, step=0):
    control = np.zeros(LENGTH, np.int64)
    control[SEED], control[STEP] = seed, step
    return control


def as_signed(seed):
    """The int64 with the bits of an unsigned 64-bit number."""
    return int(np.array(seed, np.uint64).view(np.int64))


def expected_uniform(size, seed, step, stream):
    """Uniform numbers by the rule in `random`'s text, element by element."""
    result = []
    for e in range(size):
        counter = (16 * (e // 64) + e % 16, stream, step & ONES, step >> 32)
        word = naive.philox4x32_10(counter, (seed & ONES, seed >> 32))[e % 64 // 16]
        result.append((word >> 8) / 2**24)
    return np.array(result)


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answers(counter, key, want, dtype):
    @kernel(name="test_philox")
    def words_of(c: "in whole i[F]", y: "inout rows f[N,C]", lo: "begin", hi: "end"):
        zero = random.words(y, 0) & 0
        words = random.philox(zero ^ c[0], zero ^ c[1], zero ^ c[2], zero ^ c[3], c[4], c[5])
        w0, w1, w2, w3 = words
        for row in range(lo, hi):
            for part in range(2):  # 16 bits a time are exact in float32
                store(y, (8 * row + part) * 16, to_float(half(w0, part)))
                store(y, (8 * row + part + 2) * 16, to_float(half(w1, part)))
                store(y, (8 * row + part + 4) * 16, to_float(half(w2, part)))
                store(y, (8 * row + part + 6) * 16, to_float(half(w3, part)))

    y = np.zeros((1, 128), dtype)
    call(words_of, c=np.array([*counter, *key], np.int64), y=y)
    low, high = y[0, ::32].astype(np.uint64), y[0, 16::32].astype(np.uint64)
    del KERNELS["test_philox"]
    assert (low | high << np.uint64(16)).tolist() == list(want)
    assert naive.philox4x32_10(counter, key) == want


@random.helper
def half(word, part):
    return shift_right(word, 16 * part) & 0xFFFF


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_follow_the_documented_rule(dtype):
    seed, step, stream = 0x9ABCDEF012345678, 2**32 + 7, 5
    y = np.empty((3, 67), dtype)
    control = control_of(as_signed(seed), step)
    call(KERNELS["uniform"], y=y, control=control, low=0.0, high=1.0, stream=stream)
    np.testing.assert_array_equal(y.ravel(), expected_uniform(y.size, seed, step, stream))
    x = np.ones_like(y)
    kept = np.empty_like(y)
    call(KERNELS["dropout"], x=x, y=kept, control=control, keep=0.7, scale=2.0, stream=stream)
    np.testing.assert_array_equal(kept, np.where(y < dtype(0.7), 2.0, 0.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (5, 200)])
def test_split_and_plain_python(shape, dtype):
    rng = np.random.default_rng(1)
    x, control = rng.standard_normal(shape), control_of(3, 4)
    y = compute(
        "dropout", dtype, {"y": shape}, x=x, control=control, keep=0.6, scale=1 / 0.6, stream=1
    )["y"]
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], (x.astype(dtype) / 0.6)[~dropped], rtol=1e-6)
    y = compute("uniform", dtype, {"y": shape}, control=control, low=-2.0, high=3.0, stream=1)["y"]
    assert -2 <= y.min() <= y.max() <= 3
    y = compute("normal", dtype, {"y": shape}, control=control, mean=1.0, std=2.0, stream=1)["y"]
    assert np.isfinite(y).all()


def numbers(name, shape=(256, 1024), seed=1, step=0, stream=0, dtype=np.float32, **reals):
    y = np.empty(shape, dtype)
    call(KERNELS[name], y=y, control=control_of(seed, step), stream=stream, **reals)
    return y.astype(np.float64).ravel()


def test_uniform_statistics():
    u = numbers("uniform", low=0.0, high=1.0)
    counts = np.histogram(u, 256, (0, 1))[0]
    chi2 = ((counts - u.size / 256) ** 2).sum() / (u.size / 256)
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)
    for lag in (1, 2, 16, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 5 / np.sqrt(u.size)


def test_normal_statistics():
    z = numbers("normal", mean=0.0, std=1.0)
    room = 5 / np.sqrt(z.size)
    assert abs(z.mean()) < room
    assert abs((z**2).mean() - 1) < room * np.sqrt(2)
    assert abs((z**3).mean()) < room * np.sqrt(15)
    assert abs((z**4).mean() - 3) < room * np.sqrt(96)
    for lag in (16, 32, 48):
        assert abs(np.corrcoef(z[:-lag], z[lag:])[0, 1]) < room
    bounds = [-3, -2, -1, 0, 1, 2, 3]
    shares = [0.0013499, 0.0227501, 0.1586553, 0.5, 0.8413447, 0.9772499, 0.9986501]
    np.testing.assert_allclose([(z < b).mean() for b in bounds], shares, atol=room / 2)


def test_both_precisions_drop_the_same_elements():
    shape, control = (9, 100), control_of(5)
    kept = []
    for dtype in DTYPES:
        y = np.empty(shape, dtype)
        call(KERNELS["dropout"], x=np.ones(shape, dtype), y=y, control=control, keep=0.5, scale=2.0,
             stream=0)  # fmt: skip
        kept.append(y != 0)
    np.testing.assert_array_equal(*kept)
    assert 0.4 < kept[0].mean() < 0.6


def test_seed_step_and_stream_give_other_numbers():
    base = {"shape": (4, 256), "low": 0.0, "high": 1.0}
    first = numbers("uniform", **base)
    np.testing.assert_array_equal(first, numbers("uniform", **base))
    for changed in ({"seed": 2}, {"seed": 1 + 2**32}, {"step": 1}, {"step": 2**32}, {"stream": 1}):
        other = numbers("uniform", **base, **changed)
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.16


def test_extremes_of_keep():
    x = np.arange(1, 301, dtype=np.float32).reshape(3, 100)
    y = np.empty_like(x)
    for keep, want in ((1.0, x), (0.0, 0 * x)):
        call(KERNELS["dropout"], x=x, y=y, control=control_of(), keep=keep, scale=1.0, stream=0)
        np.testing.assert_array_equal(y, want)

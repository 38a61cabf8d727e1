"""Approximate functions over the whole range of float32, by bit patterns; run at every width."""

import mpmath
import numpy as np
import pytest

import fastnn.kernels.elementwise.cpu  # noqa: F401
from fastnn.kernels import simd
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.kernels.simd import load, store
from fastnn.runtime.cpu.loop import flush_to_zero, restore_rounding
from fastnn.testing.kernels import call

TINY, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max
EDGES = np.array(
    [0, TINY, 1e-37, 1e-20, 1e-19, 1e-10, 1, 1.8e19, 2e19, 2.0**125, 2.0**126, 2.0**127, MOST,
     np.inf, np.nan, 1e-45, TINY / 2],
    np.float32,
)  # fmt: skip


def patterns(stride):
    """Every `stride`-th bit pattern, NaN, infinities and subnormals included, and the edges."""
    bits = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32)
    return np.concatenate([bits.view(np.float32), EDGES, -EDGES])


def flushed(x):
    """Subnormal numbers as zeros."""
    return np.where(np.abs(x) < TINY, np.copysign(np.zeros_like(x), x), x)


@pytest.fixture(scope="module")
def quick():
    @kernel(name="test_quick")
    def function(
        a: "in rows f[N,C]", b: "in rows f[N,C]", root: "out rows f[N,C]",
        quotient: "out rows f[N,C]", flush: "int", lo: "begin", hi: "end",
    ):  # fmt: skip
        control = flush_to_zero() if flush else 0
        for row in range(lo, hi):
            i = row * a.shape[1]
            v = load(a, i)
            store(root, i, simd.quick_sqrt(v))
            store(quotient, i, simd.quick_divide(v, load(b, i)))
        if flush:
            restore_rounding(control)

    def run(a, b, flush):
        width = target.host().lanes(4)
        size = len(a)
        fill = -size % width
        a, b = (np.append(x, np.ones(fill, np.float32)).reshape(-1, width) for x in (a, b))
        root, quotient = np.empty_like(a), np.empty_like(a)
        call(function, a=a, b=b, root=root, quotient=quotient, flush=int(flush))
        return root.ravel()[:size], quotient.ravel()[:size]

    yield run
    del KERNELS["test_quick"]


def check(got, want, ulp=2):
    """`want` in float64: within `ulp`, the same infinities, zeros and NaN; a result below the
    smallest normal number may be flushed or not."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    size = np.abs(want)
    normal = (size >= TINY) & (size <= MOST)
    unit = np.spacing(np.where(normal, size, 1).astype(np.float32)).astype(np.float64)
    error = np.abs(got[normal].astype(np.float64) - want[normal]) / unit[normal]
    assert error.max() <= ulp
    over = size > float(MOST) * (1 + 2.0**-20)
    np.testing.assert_array_equal(got[over], np.sign(want[over]) * np.inf)
    assert (np.abs(got[size < TINY]) <= TINY).all()
    assert (got[want == 0] == 0).all()


@pytest.mark.parametrize("flush", [False, True])
def test_quick_square_root(quick, flush):
    a = patterns(40009)
    a = a[~(a < 0)]
    with np.errstate(all="ignore"):
        exact = (flushed(a) if flush else a).astype(np.float64)
        check(quick(a, np.ones_like(a), flush)[0], np.sqrt(exact))


@pytest.mark.parametrize("flush", [False, True])
def test_quick_division(quick, flush):
    a = patterns(40009)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        near = (a * 10 ** rng.uniform(-3, 3, len(a))).astype(np.float32)
    pairs = np.meshgrid(EDGES, np.concatenate([EDGES, -EDGES]))
    b = np.concatenate([rng.permutation(a), near, a, *[p.ravel() for p in pairs[1:]]])
    a = np.concatenate([a, a, rng.permutation(a), *[p.ravel() for p in pairs[:1]]])
    with np.errstate(all="ignore"):
        x, y = ((flushed(v) if flush else v).astype(np.float64) for v in (a, b))
        check(quick(a, b, flush)[1], x / y, 2 if flush else 4)


# ---------------------------------------------------------------- gradients of activations

ALPHA = -0.5
#: derivatives that must keep their digits where they are small
SLOPES = {
    "elu": (lambda x: 1 if x > 0 else 0.7 * mpmath.exp(x), {"alpha": 0.7}),
    "selu": (
        lambda x: (
            mpmath.mpf("1.0507009873554804934")
            * (1 if x > 0 else mpmath.mpf("1.6732632423543772848") * mpmath.exp(x))
        ),
        {},
    ),
    "softplus": (lambda x: 1 / (1 + mpmath.exp(-x)), {"beta": 1.0, "threshold": 1e9}),
    "silu": (lambda x: (1 + x / (1 + mpmath.exp(x))) / (1 + mpmath.exp(-x)), {}),
    "gelu": (lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x), {}),
    "erf": (lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x), {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SLOPES)
def test_gradients_keep_their_digits(name, dtype):
    slope, reals = SLOPES[name]
    low = {"gelu": -9, "erf": -4}.get(name, -80)
    x = np.concatenate([np.linspace(low, -3, 78), np.linspace(-0.5, 6, 50)]).astype(dtype)
    got = np.empty((1, len(x)), dtype)
    operands = {p: x.reshape(1, -1) for p in ("x", "y") if p in KERNELS[f"{name}_backward"].params}
    call(KERNELS[f"{name}_backward"], dy=np.ones_like(got), dx=got, **operands, **reals)
    with mpmath.workdps(50):
        for v, g in zip(x.tolist(), got[0].tolist(), strict=True):
            want = slope(mpmath.mpf(v))
            # the derivatives of silu and gelu are sums: digits are lost near their roots only
            assert abs(mpmath.mpf(g) / want - 1) < 40 * np.finfo(dtype).eps, f"{name}'({v})"


def test_elu_with_a_negative_alpha():
    x = np.array([[-30, -2, -0.5, 0, 1]], np.float64)
    got = np.empty_like(x)
    call(KERNELS["elu_backward"], x=x, dy=np.ones_like(x), dx=got, alpha=ALPHA)
    np.testing.assert_allclose(got, np.where(x > 0, 1, ALPHA * np.exp(x)), rtol=1e-14)

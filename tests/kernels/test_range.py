"""Approximate functions over the whole range of float32, by bit patterns; run at every width."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest

import fastnn.kernels.elementwise.cpu  # noqa: F401
from fastnn.kernels import simd
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import KERNELS, helper, kernel
from fastnn.kernels.simd import load, store
from fastnn.optim.adam import Adam, amsgrad
from fastnn.optim.adaptive import Adadelta, Adagrad, rmsprop
from fastnn.runtime.cpu.machine import flush_to_zero, restore_rounding
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


def rows(x):
    """A vector a row; the last one is filled up with ones."""
    width = target.host().lanes(4)
    return np.append(x, np.ones(-len(x) % width, np.float32)).reshape(-1, width)


@pytest.fixture(params=["own", "estimated"])
def quick(request, monkeypatch):
    """Roots as this CPU takes them, and as an Intel's AVX-512 does, if this one has as much."""
    host = target.host()
    if request.param == "estimated" and host.vector_bits == 512:
        host = replace(host, cpu="skylake-avx512", pairs=False)
        monkeypatch.setattr(target, "host", lambda: host)
    assert host.estimates_roots == (host.vector_bits == 512 and "znver" not in host.cpu)

    @kernel(name="test_quick")
    def function(
        a: "in rows f[N,C]", root: "out rows f[N,C]", flush: "int", lo: "begin", hi: "end",
    ):  # fmt: skip
        control = flush_to_zero() if flush else 0
        for row in range(lo, hi):
            i = row * a.shape[1]
            store(root, i, simd.twice_sqrt(load(a, i)))
        if flush:
            restore_rounding(control)

    def run(a, flush):
        a = rows(a)
        root = np.empty_like(a)
        call(function, a=a, root=root, flush=int(flush))
        return root.ravel()

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
def test_quick_root(quick, flush):
    """Correctly rounded, whatever the CPU's estimate is, down to the smallest normal number."""
    a = patterns(4001)
    a = rows(a[~(a < TINY)]).ravel()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(quick(a, flush), 2 * np.sqrt(a))


#: a rule, its slots (s: never negative), and its scalars
RULES = {
    "adam": (Adam.rule, "ms", (-0.1, 3.2, 0.9, 0.1, 0.999, 0.001, 1e-8)),
    "amsgrad": (amsgrad, "mss", (-0.1, 3.2, 0.9, 0.1, 0.999, 0.001, 1e-8)),
    "adagrad": (Adagrad.rule, "s", (-0.1, 1e-10)),
    "rmsprop": (rmsprop, "s", (-0.1, 0.99, 0.01, 1e-8, 0.0)),
    "adadelta": (Adadelta.rule, "ss", (-1.0, 0.9, 0.1, 1e-6)),
}


@pytest.mark.parametrize("name", RULES)
def test_quick_rules(name):
    """An update from any gradient and any state, as IEEE arithmetic has it: the same NaN, the same
    infinities, and numbers that are close."""
    rule, kinds, scalars = RULES[name]
    scope = {"rule": helper(rule), **vars(simd), "flush": flush_to_zero, "back": restore_rounding}
    slots = [f"s{k}" for k in range(len(kinds))]
    out = ["p", *slots]
    exec(
        f"def f({', '.join(['g', *out, 'lo', 'hi'])}):\n"
        "    control = flush()\n"
        "    for row in range(lo, hi):\n"
        "        i = row * g.shape[1]\n"
        f"        new = rule({', '.join(f'load({a}, i)' for a in ['p', 'g', *slots])}, "
        f"{', '.join(f'splat(p, {v})' for v in scalars)})\n"
        + "".join(f"        store({a}, i, new[{k}])\n" for k, a in enumerate(out))
        + "    back(control)\n",
        scope,
    )
    arrays = {"g": "in rows f[N,C]", **dict.fromkeys(out, "inout rows f[N,C]")}
    scope["f"].__annotations__ = {**arrays, "lo": "begin", "hi": "end"}
    made = kernel(scope["f"], name=f"test_rule_{name}")
    try:
        rng = np.random.default_rng(0)
        any_of = patterns(40009)
        positive = any_of[~(any_of < 0)]
        g = rows(np.concatenate([any_of, any_of, EDGES, -EDGES]))
        start = {"p": np.ones_like(g)}
        for slot, kind in zip(slots, kinds, strict=True):
            start[slot] = rng.choice(positive if kind == "s" else any_of, g.shape)
            start[slot].flat[: any_of.size] = 0.0
        got = {a: x.copy() for a, x in start.items()}
        call(made, g=g, **got)
    finally:
        del KERNELS[made.name]
    with np.errstate(all="ignore"):
        inputs = [flushed(x) for x in (start["p"], g, *(start[s] for s in slots))]
        want = rule(*inputs, *(np.float32(v) for v in scalars))
        for a, exact in zip(out, want, strict=True):
            np.testing.assert_array_equal(np.isnan(got[a]), np.isnan(exact))
            edge = np.abs(exact) > MOST * 0.9999  # may round to infinity
            exact = np.where(edge & ~np.isnan(exact), np.copysign(np.inf, exact), exact)
            mine = np.where(np.abs(got[a]) > MOST * 0.9999, np.copysign(np.inf, got[a]), got[a])
            np.testing.assert_allclose(mine, exact, rtol=1e-5, atol=1e-6 if a == "p" else 2e-37)


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
    "sin": (mpmath.cos, {}),
    "cos": (lambda x: -mpmath.sin(x), {}),
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

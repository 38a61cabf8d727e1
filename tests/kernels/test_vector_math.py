"""Vector mathematics: errors in ULP over the whole range, special values, machine code."""

import math
import re

import mpmath
import numpy as np
import pytest

import fastnn.kernels.elementwise.cpu
import fastnn.kernels.random.cpu  # noqa: F401
from fastnn.kernels import vector_math
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.kernels.simd import load, store
from fastnn.runtime.cpu import codegen
from fastnn.testing.kernels import call

SOFTPLUS = {"beta": 1.0, "threshold": 1e9}


def logistic(x):
    return 1 / (1 + mpmath.exp(-x))


def normal_cdf(x):
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


#: exact functions and the ULP allowed in float32 and float64
EXACT = {
    "exp": (mpmath.exp, 2, 2),
    "log": (mpmath.log, 1, 1),
    "tanh": (mpmath.tanh, 3, 3),
    "sigmoid": (logistic, 3, 3),
    "erf": (mpmath.erf, 3, 3),
    "elu": (lambda x: x if x > 0 else mpmath.expm1(x), 2, 2),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), 3, 3),
    "gelu": (lambda x: x * normal_cdf(x), 8, 8),
}
REALS = {"elu": {"alpha": 1.0}, "softplus": SOFTPLUS}


def run(name, x):
    x = np.ascontiguousarray(x).reshape(1, -1)
    y = np.empty_like(x)
    call(KERNELS[f"{name}_forward"], x=x, y=y, **REALS.get(name, {}))
    return y[0]


def float32_samples(stride):
    """Every `stride`-th bit pattern of the finite float32 numbers."""
    x = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def errors(got, want, dtype):
    """Errors in units of the last place where the exact value is a normal number, else 0."""
    info = np.finfo(dtype)
    normal = (np.abs(want) >= info.tiny) & (np.abs(want) <= info.max)
    unit = np.spacing(np.where(normal, np.abs(want), 1).astype(dtype)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(normal, np.abs(got.astype(np.float64) - want) / unit, 0.0)


ORACLE32 = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "gelu": np.vectorize(lambda x: x * math.erfc(-x / math.sqrt(2)) / 2, otypes=[float]),
}


@pytest.mark.parametrize("name", ORACLE32)
def test_float32_over_the_whole_range(name):
    x = float32_samples(40009)
    with np.errstate(all="ignore"):
        want = ORACLE32[name](x.astype(np.float64))
        error = errors(run(name, x), want, np.float32)
    assert error.max() <= EXACT[name][1], f"at {x[error.argmax()]!r}"


@pytest.mark.parametrize("name", EXACT)
def test_float64_against_many_digits(name):
    rng = np.random.default_rng(1)
    tiny = 10 ** rng.uniform(-300, 0, 60)
    x = np.concatenate([rng.normal(size=200), rng.uniform(-37, 37, 200), tiny, -tiny])
    if name == "log":
        x = np.concatenate([np.abs(x), rng.uniform(0.5, 2, 200), 1 + 1e-9 * rng.normal(size=50)])
    y = run(name, x)
    with mpmath.workdps(40):
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            want = EXACT[name][0](mpmath.mpf(a))
            if abs(want) < np.finfo(np.float64).tiny:
                continue
            error = float(abs(mpmath.mpf(b) - want)) / np.spacing(abs(float(want)))
            assert error <= EXACT[name][2], f"{name}({a!r}) = {b!r}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "low", "zero", "high"),
    [
        ("exp", 0.0, 1.0, np.inf),
        ("log", np.nan, -np.inf, np.inf),
        ("tanh", -1.0, 0.0, 1.0),
        ("sigmoid", 0.0, 0.5, 1.0),
        ("softplus", 0.0, math.log(2), np.inf),
        ("erf", -1.0, 0.0, 1.0),
        ("relu", 0.0, 0.0, np.inf),
        ("elu", -1.0, 0.0, np.inf),
        ("gelu", 0.0, 0.0, np.inf),
        ("gelu_tanh", 0.0, 0.0, np.inf),
        ("silu", 0.0, 0.0, np.inf),
    ],
)
def test_special_values(name, low, zero, high, dtype):
    x = np.array([-np.inf, 0.0, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(run(name, x), np.array([low, zero, high, np.nan], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_of_exp_and_log(dtype):
    info = np.finfo(dtype)
    top = np.nextafter(np.log(info.max), info.dtype.type(0))
    x = np.array([top, top * 1.001, 1000 * top, np.log(info.tiny), -1000 * top], dtype)
    y = run("exp", x)
    assert np.isfinite(y[0])
    assert y[0] > 0.99 * float(info.max)
    assert np.isinf(y[1:3]).all()
    np.testing.assert_allclose(y[3], info.tiny, rtol=1e-4)
    assert y[4] == 0
    subnormal = info.smallest_subnormal * np.arange(1, 40, dtype=dtype)
    np.testing.assert_allclose(run("log", subnormal), np.log(subnormal), rtol=4 * info.eps)
    assert np.isnan(run("log", np.array([-1, -info.tiny], dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sine_and_cosine(dtype):
    """2 ULP up to the bound, near the roots too; beyond it none is right, and none given."""
    most = 1e6 if dtype is np.float32 else 1e14
    rng = np.random.default_rng(2)
    x = np.concatenate([
        rng.uniform(-10, 10, 300), most * rng.uniform(-1, 1, 100), 10 ** rng.uniform(-30, 0, 50),
        np.arange(-40, 40) * (np.pi / 2), 10 ** rng.uniform(0, np.log10(most), 100),
    ]).astype(dtype)  # fmt: skip
    for name, exact in (("sin", mpmath.sin), ("cos", mpmath.cos)):
        with mpmath.workdps(60):
            for a, b in zip(x.tolist(), run(name, x).tolist(), strict=True):
                want = exact(mpmath.mpf(a))
                error = abs(mpmath.mpf(b) - want) / np.spacing(dtype(abs(float(want))))
                assert error <= 2, f"{name}({a!r}) = {b!r}"
        beyond = np.array([most * 1.01, -most * 1.01, np.inf, -np.inf, np.nan], dtype)
        assert np.isnan(run(name, beyond)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_turns(dtype):
    @kernel(name="test_turns")
    def turns(
        u: "in rows f[N,C]", s: "out rows f[N,C]", c: "out rows f[N,C]", lo: "begin", hi: "end"
    ):
        for row in range(lo, hi):
            v = load(u, row * u.shape[1])
            store(s, row * u.shape[1], vector_math.sin_turns(v))
            store(c, row * u.shape[1], vector_math.cos_turns(v))

    width = target.host().lanes(np.dtype(dtype).itemsize)
    u = np.linspace(0, 1, 4096, dtype=dtype).reshape(-1, width)
    s, c = np.empty_like(u), np.empty_like(u)
    call(turns, u=u, s=s, c=c)
    eps = np.finfo(dtype).eps
    with mpmath.workdps(30):
        sine = [float(mpmath.sinpi(2 * mpmath.mpf(float(v)))) for v in u.flat]
        cosine = [float(mpmath.cospi(2 * mpmath.mpf(float(v)))) for v in u.flat]
    np.testing.assert_allclose(s.ravel(), sine, atol=eps, rtol=0)
    np.testing.assert_allclose(c.ravel(), cosine, atol=eps, rtol=0)
    del KERNELS["test_turns"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", ["exp_forward", "log_forward", "tanh_forward", "gelu_backward", "softplus_forward",
             "dropout", "normal"],
)  # fmt: skip
def test_machine_code_is_vector_code(name, dtype):
    text = codegen.assembly(KERNELS[name], dtype)
    instructions = re.findall(r"^\t([a-z]\w+)[ \t]*(.*)$", text, re.MULTILINE)
    named = set(
        re.findall(r"^\t(?:movabsq\s+\$|call\w*\s+|bl\s+)([A-Za-z_]\w*)", text, re.MULTILINE)
    )
    assert named <= set(re.findall(r"^(\w+):", text, re.MULTILINE)), "calls a library"
    if target.host().name == "NEON":
        pytest.skip("the names below are those of x86")
    suffix = "ps" if dtype == "float32" else "pd"
    register = {512: "zmm", 256: "ymm", 128: "xmm"}[target.host().vector_bits]
    packed = [i for i in instructions if i[0].endswith(suffix) and register in i[1]]
    single = [i for i in instructions if re.fullmatch(r"v?(add|sub|mul|div|sqrt)s[sd]", i[0])]
    assert len(packed) > 10
    assert len(single) <= 2, "scalar arithmetic"

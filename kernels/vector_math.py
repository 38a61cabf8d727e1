"""exp, log, tanh and their relatives on vectors, in float32 and float64, without branches.

Each function is one formula for both precisions; only the polynomials differ (`polynomial` and
`pick` choose when the code is compiled). NaN stays NaN and infinities give their limits. Errors are
at most 2 ULP (3 for tanh and sigmoid), unless a function says otherwise.

Coefficients: interpolation at Chebyshev nodes, computed with 60 digits (mpmath); the polynomial of
`log` is fdlibm's (Sun Microsystems 1993, e_log.c, and e_logf.c as in musl).
"""

from __future__ import annotations

from .declare import helper
from .simd import (
    Vector,
    absolute,
    bits,
    copysign,
    fill_like,
    fma,
    from_bits,
    ldexp,
    maximum,
    minimum,
    pick,
    polynomial,
    rint,
    shift_right,
    to_float,
    where,
)

INFINITY = float("inf")
NAN = float("nan")

# (e^r - 1 - r)/r^2 for |r| <= ln(2)/2
_EXP_SINGLE = (0.001392618359, 0.008363179053, 0.04166655462, 0.1666657699, 0.5)
_EXP_DOUBLE = (
    2.09146869680868772e-9,
    2.51052170047207452e-8,
    2.75572736431102953e-7,
    2.75572554002064244e-6,
    2.48015873255477412e-5,
    1.98412698748206253e-4,
    1.38888888888837483e-3,
    8.33333333332613513e-3,
    4.16666666666666698e-2,
    1.6666666666666671e-1,
    0.5,
)
# (log(1+f) - (f - f^2/2))/s - f^2/2 as a polynomial in s^2, divided by s^2; s = f/(2+f)
_LOG_SINGLE = (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693)
_LOG_DOUBLE = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)
# erf(sqrt(u))/sqrt(u) for 0 <= u <= 1
_ERF_SINGLE = (
    7.875875063e-5,
    -8.016864287e-4,
    5.189087423e-3,
    -2.685421201e-2,
    1.128359472e-1,
    -3.761262667e-1,
    1.128379166,
)
_ERF_DOUBLE = (
    5.9571761477489114e-11,
    -1.13728488567916737e-9,
    1.46597752740474358e-8,
    -1.6350312701054695e-7,
    1.6461000484121368e-6,
    -1.49255952668311816e-5,
    1.20553311116427109e-4,
    -8.54832698083378991e-4,
    5.22397762481801447e-3,
    -2.68661706450767932e-2,
    1.12837916709548787e-1,
    -3.76126389031837481e-1,
    1.12837916709551257,
)
# Mills' ratio: (a+K) e^(a^2/2) Phi(-a) as a polynomial in t = (a-K)/(a+K), with K = 3 and 4, for
# 0 <= a <= 14.5 and 39
_TAIL_SINGLE = (
    5.53559663e-5,
    1.331259088e-4,
    -2.445826664e-4,
    -1.034222059e-3,
    1.024135711e-3,
    6.969813131e-3,
    -1.046229376e-2,
    -4.726274528e-2,
    2.300176777e-1,
    -5.093319895e-1,
    7.290836907e-1,
)
_TAIL_DOUBLE = (
    -9.65342542022850467e-10,
    7.26954547902668946e-11,
    1.39240239935017101e-8,
    1.45785933470364597e-8,
    -7.63808205349045035e-8,
    -1.54263205367710739e-7,
    2.63682485764076251e-7,
    1.01980485181351727e-6,
    -6.25132104047868019e-7,
    -5.91889273176323645e-6,
    7.15005595921609866e-7,
    3.51441811577609727e-5,
    -1.90786653166135743e-6,
    -2.31094818319376211e-4,
    1.33344254019049116e-4,
    1.6308184418903596e-3,
    -3.47969236224253334e-3,
    -7.54018896559305902e-3,
    6.03965748906994641e-2,
    -1.86521857959694163e-1,
    3.87137400742218879e-1,
    -6.07896641971891759e-1,
    7.5528513041575148e-1,
)
# sin(2 pi r)/r and cos(2 pi r) as polynomials in r^2, |r| <= 1/8
_SIN_SINGLE = (-75.4016127, 81.59254287, -41.34166257, 6.283185288)
_SIN_DOUBLE = (
    3.78086895930229552,
    -15.0938042099871135,
    42.058685020160894,
    -76.7058597042745506,
    81.6052492759480352,
    -41.3417022403996362,
    6.28318530717958646,
)
_COS_SINGLE = (59.22016896, -85.44284467, 64.93931614, -19.73920865, 1.0)
_COS_DOUBLE = (
    -1.69684947029188268,
    7.90309168775169764,
    -26.426250908622136,
    60.2446413288672933,
    -85.4568172065227125,
    64.9393940226679575,
    -19.739208802178717,
    1.0,
)

# (sin(r) - r)/r^3 and (cos(r) - 1 + r^2/2)/r^4 as polynomials in r^2, |r| <= pi/4 + 0.1
_SIN_TERMS_SINGLE = (2.716723933e-6, -1.98393627e-4, 8.333330346e-3, -1.666666666e-1)
_SIN_TERMS_DOUBLE = (
    -7.57039880829721487e-13,
    1.60582176999601872e-10,
    -2.50521039731211796e-8,
    2.7557319211884659e-6,
    -1.98412698412540342e-4,
    8.33333333333332559e-3,
    -1.66666666666666667e-1,
)
_COS_TERMS_SINGLE = (-2.723193204e-7, 2.479999597e-5, -1.38888864e-3, 4.166666666e-2)
_COS_TERMS_DOUBLE = (
    4.7368093966306084e-14,
    -1.14702863362974732e-11,
    2.08767545348081584e-9,
    -2.75573192172578441e-7,
    2.4801587301578513e-5,
    -1.38888888888888846e-3,
    4.16666666666666667e-2,
)


@helper
def _whole_part(x: Vector) -> Vector:
    """x/ln 2 rounded to a whole number."""
    # adding 1.5 * 2^(mantissa bits) leaves no room for a fraction: cheaper than `rint`
    magic = pick(x, 12582912.0, 6755399441055744.0)
    return fma(x, pick(x, 1.44269504, 1.442695040888963407), magic) - magic


@helper
def _exp_minus_1(x: Vector, n: Vector) -> Vector:
    """e^r - 1 with r = x - n ln 2, |r| <= ln(2)/2; ln 2 in two parts (Cody and Waite 1980)."""
    r = fma(n, pick(x, -0.693359375, -6.93147180369123816490e-01), x)
    r = fma(n, pick(x, 2.12194440054690583e-4, -1.90821492927058770002e-10), r)
    return fma(r * r, polynomial(r, _EXP_SINGLE, _EXP_DOUBLE), r)


@helper
def exp(x: Vector) -> Vector:
    """e^x = 2^n e^r. Overflows to infinity; below the smallest normal number it rounds to a
    subnormal one, or to 0 where the processor flushes them."""
    # bounds beyond which the result is infinity or 0 anyway; a NaN passes (second operand)
    x = minimum(pick(x, 89.0, 710.0), x)
    x = maximum(pick(x, -104.0, -746.0), x)
    n = _whole_part(x)
    return ldexp(_exp_minus_1(x, n) + 1.0, n)


@helper
def expm1(x: Vector) -> Vector:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), accurate near 0.

    Overflows up to ln(2)/2 earlier than `exp` does.
    """
    x = minimum(pick(x, 89.0, 710.0), x)
    x = maximum(pick(x, -104.0, -746.0), x)
    n = _whole_part(x)
    scale = ldexp(fill_like(x, 1.0), n)
    return fma(scale, _exp_minus_1(x, n), scale - 1.0)


@helper
def _log_near_1(f: Vector, k: Vector) -> Vector:
    """log((1+f) 2^k) for sqrt(1/2) <= 1+f <= sqrt(2) (fdlibm, e_log.c)."""
    s = f / (f + 2.0)
    z = s * s
    half = 0.5 * f * f
    r = z * polynomial(z, _LOG_SINGLE, _LOG_DOUBLE)
    low = fma(k, pick(f, 9.0580006145e-06, 1.90821492927058770002e-10), s * (half + r))
    high = pick(f, 6.9313812256e-01, 6.93147180369123816490e-01)
    return fma(k, high, f - (half - low))


@helper
def log(x: Vector) -> Vector:
    """Natural logarithm: -infinity at 0, NaN below."""
    subnormal = x < pick(x, 1.1754943508222875e-38, 2.2250738585072014e-308)
    scaled = where(subnormal, x * pick(x, 33554432.0, 18014398509481984.0), x)
    # the bits of sqrt(1/2) are taken off, so that the exponent changes there and not at 1
    root = pick(bits(x), 0x3F3504F3, 0x3FE6A09E667F3BCD)
    offset = bits(scaled) - root
    mantissa_bits = pick(offset, 23, 52)
    mantissa = (offset & pick(offset, 0x007FFFFF, 0x000FFFFFFFFFFFFF)) + root
    k = to_float(shift_right(offset, mantissa_bits))
    k = where(subnormal, k - pick(x, 25.0, 54.0), k)
    result = _log_near_1(from_bits(mantissa) - 1.0, k)
    result = where(x < INFINITY, result, x)
    return where(x > 0.0, result, where(x == 0.0, fill_like(x, -INFINITY), fill_like(x, NAN)))


@helper
def log1p_fraction(u: Vector) -> Vector:
    """log(1 + u) for 0 <= u <= 1."""
    upper = u > 0.41421356
    # (1+u) = 2 (1 + (u-1)/2): the difference is exact, or nearly so
    return _log_near_1(where(upper, 0.5 * (u - 1.0), u), where(upper, fill_like(u, 1.0), u * 0.0))


@helper
def tanh(x: Vector) -> Vector:
    """tanh x = t/(t + 2) with t = e^(2|x|) - 1, which is accurate near 0, too."""
    t = expm1(minimum(pick(x, 20.0, 40.0), absolute(x) * 2.0))
    return copysign(t / (t + 2.0), x)


@helper
def sigmoid(x: Vector) -> Vector:
    """1/(1 + e^-x)."""
    return 1.0 / (1.0 + exp(-x))


@helper
def _mills_ratio(a: Vector) -> Vector:
    """Phi(-a) e^(a^2/2) for a >= 0 (Phi: the normal distribution function), as in Shepherd and
    Laframboise, "Chebyshev approximation of (1+2x)exp(x^2)erfc x", Math. Comp. 36 (1981)."""
    w = 1.0 / (a + pick(a, 3.0, 4.0))
    t = (a - pick(a, 3.0, 4.0)) * w
    return w * polynomial(t, _TAIL_SINGLE, _TAIL_DOUBLE)


@helper
def _gauss(a: Vector) -> Vector:
    """e^(-a^2/2); the rounding error of the square is made good, it would grow in `exp`."""
    square = a * a
    error = fma(a, a, -square)
    result = exp(-0.5 * square)
    return fma(result * -0.5, error, result)


@helper
def normal_density(x: Vector) -> Vector:
    """phi(x) = e^(-x^2/2)/sqrt(2 pi)."""
    return _gauss(minimum(pick(x, 14.5, 39.0), absolute(x))) * 0.39894228040143267794


@helper
def normal_distribution(x: Vector) -> Vector:
    """Phi(x) = (1 + erf(x/sqrt 2))/2, with full relative accuracy for negative x, too."""
    a = minimum(pick(x, 14.5, 39.0), absolute(x))
    tail = _gauss(a) * _mills_ratio(a)
    return where(x > 0.0, 1.0 - tail, tail)


@helper
def erf(x: Vector) -> Vector:
    """The error function: x P(x^2) up to 1, then 1 - 2 Phi(-sqrt(2) x)."""
    a = absolute(x)
    far = minimum(pick(x, 14.5, 39.0), a * 1.4142135623730950488)
    outer = fma(_gauss(far) * -2.0, _mills_ratio(far), 1.0)
    inner = a * polynomial(a * a, _ERF_SINGLE, _ERF_DOUBLE)
    return copysign(where(a < 1.0, inner, outer), x)


@helper
def _quarter_turn(u: Vector, shift: float) -> Vector:
    """sin(2 pi (u + shift/4)), shift 0 or 1; absolute error below 2^-23 (2^-51)."""
    quarter = rint(u * 4.0)
    r = fma(quarter, -0.25, u)
    z = r * r
    sine = r * polynomial(z, _SIN_SINGLE, _SIN_DOUBLE)
    cosine = polynomial(z, _COS_SINGLE, _COS_DOUBLE)
    number = quarter + shift  # 0 to 5: quadrants, counted from that around 0
    is_cosine = (number == 1.0) | (number == 3.0) | (number == 5.0)
    negative = (number == 2.0) | (number == 3.0)
    value = where(is_cosine, cosine, sine)
    return where(negative, -value, value)


@helper
def sin_turns(u: Vector) -> Vector:
    """sin(2 pi u) for 0 <= u <= 1."""
    return _quarter_turn(u, 0.0)


@helper
def cos_turns(u: Vector) -> Vector:
    """cos(2 pi u) for 0 <= u <= 1."""
    return _quarter_turn(u, 1.0)


@helper
def _wave(x: Vector, shift: float) -> Vector:
    """sin(x + shift pi/2), shift 0 or 1; pi/2 in three parts (Cody and Waite 1980)."""
    n = rint(x * 0.63661977236758134308)
    r = fma(n, pick(x, -1.5707963705062866211, -1.570796326794896558), x)
    r = fma(n, pick(x, 4.3711388286737928865e-8, -6.1232339957367660359e-17), r)
    r = fma(n, pick(x, 1.7151245100058818728e-15, 1.4973849048591698329e-33), r)
    z = r * r
    sine = fma(r * z, polynomial(z, _SIN_TERMS_SINGLE, _SIN_TERMS_DOUBLE), r)
    cosine = fma(z * z, polynomial(z, _COS_TERMS_SINGLE, _COS_TERMS_DOUBLE), fma(z, -0.5, 1.0))
    n = n + shift
    quadrant = fma(rint(n * 0.25), -4.0, n)  # -2 to 2
    value = where((quadrant == 1.0) | (quadrant == -1.0), cosine, sine)
    negative = (quadrant == 2.0) | (quadrant == -2.0) | (quadrant == -1.0)
    value = where(negative, -value, value)
    return where(absolute(x) <= pick(x, 1e6, 1e14), value, fill_like(x, NAN))


@helper
def sin(x: Vector) -> Vector:
    """The sine; NaN beyond 1e6 (1e14), where neighbouring numbers are 1/16 (1/64) apart."""
    return _wave(x, 0.0)


@helper
def cos(x: Vector) -> Vector:
    """The cosine; NaN where `sin` is."""
    return _wave(x, 1.0)

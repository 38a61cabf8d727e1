"""Initialisers: ranges, moments and structure from their formulas, PyTorch's gains, errors."""

import doctest
import math

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.nn import init

LARGE = (300, 200, 3)
FAN_IN, FAN_OUT = 600, 900
STDS = {
    "glorot_uniform": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "glorot_normal": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "he_uniform": math.sqrt(2 / FAN_IN),
    "he_normal": math.sqrt(2 / FAN_IN),
    "lecun_uniform": math.sqrt(1 / FAN_IN),
    "lecun_normal": math.sqrt(1 / FAN_IN),
    "torch_linear": math.sqrt(1 / (3 * FAN_IN)),
}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(("name", "std"), STDS.items())
def test_spread_is_the_formulas(name, std, rng):
    values = init.get(name)(LARGE, rng)
    assert values.shape == LARGE
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(0, abs=4 * std / math.sqrt(values.size))
    assert values.std() == pytest.approx(std, rel=0.01)
    if "normal" not in name:
        bound = math.sqrt(3) * std
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.999 * bound
    else:
        assert np.abs(values).max() > 3 * std


def test_same_seed_same_values():
    first, second = (init.he_normal((5, 4), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_constants(rng):
    np.testing.assert_array_equal(init.zeros((2, 3), rng), np.zeros((2, 3)))
    np.testing.assert_array_equal(init.ones((3,), rng), np.ones(3))
    np.testing.assert_array_equal(init.constant((2,), rng, value=-1.5), [-1.5, -1.5])


def test_uniform_and_normal(rng):
    values = init.uniform((100_000,), rng, low=2, high=3)
    assert 2 <= values.min() < 2.001
    assert 2.999 < values.max() < 3
    values = init.normal((100_000,), rng, mean=1, std=0.5)
    assert values.mean() == pytest.approx(1, abs=0.01)
    assert values.std() == pytest.approx(0.5, rel=0.01)


def test_truncated_normal(rng):
    values = init.truncated_normal((200_000,), rng, mean=0.5, std=2, low=-1, high=2)
    assert -1 <= values.min() < -0.99
    assert 1.99 < values.max() <= 2
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    # variance of a normal cut at ±a standard deviations: 1 - 2 a φ(a) / (2 Φ(a) - 1)
    a = 0.75
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    std = 2 * math.sqrt(1 - 2 * a * density / math.erf(a / math.sqrt(2)))
    assert values.std() == pytest.approx(std, rel=0.01)


def test_he_modes_and_slopes(rng):
    out = init.he_normal(LARGE, rng, mode="fan_out")
    assert out.std() == pytest.approx(math.sqrt(2 / FAN_OUT), rel=0.01)
    leaky = init.he_uniform(LARGE, rng, nonlinearity="leaky_relu", negative_slope=0.5)
    assert leaky.std() == pytest.approx(math.sqrt(2 / 1.25 / FAN_IN), rel=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (16, 5), (5, 16), (6, 4, 3), (40, 4, 3)])
def test_orthogonal(shape, rng):
    values = init.orthogonal(shape, rng, gain=2.0)
    assert values.shape == shape
    assert values.flags.c_contiguous
    matrix = values.reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_orthogonal_signs_are_not_biased(rng):
    corners = [init.orthogonal((2, 2), rng)[0, 0] for _ in range(400)]
    assert 120 < sum(c > 0 for c in corners) < 280


def test_identity(rng):
    np.testing.assert_array_equal(init.identity((2, 3), rng, gain=0.5), [[0.5, 0, 0], [0, 0.5, 0]])


def test_sparse(rng):
    values = init.sparse((300, 100), rng, nonzero=15, std=2)
    np.testing.assert_array_equal((values != 0).sum(axis=1), 15)
    assert values[values != 0].std() == pytest.approx(2, rel=0.05)
    assert (values != 0).sum(axis=0).min() > 15  # places differ from row to row: 45 expected
    assert (init.sparse((4, 3), rng, nonzero=15) != 0).all()


def test_torch_bias(rng):
    values = init.torch_bias((100_000,), rng, fan_in=16)
    assert 0.2499 < np.abs(values).max() <= 0.25


def test_get_binds_options_and_aliases(rng):
    np.testing.assert_array_equal(init.get(3)((2,), rng), [3, 3])
    assert init.get("xavier_uniform") is init.glorot_uniform
    assert init.get("kaiming_normal") is init.he_normal
    np.testing.assert_array_equal(init.get("identity", gain=3)((1, 1), rng), [[3]])

    def own(shape, rng, *, value=1.0):
        return np.full(shape, value)

    assert init.get(own) is own
    np.testing.assert_array_equal(init.get(own, value=2.0)((2,), rng), [2, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: init.glorot_uniform((5,), r),
            r"\(out, in, \*kernel\), got \(5,\); for a vector",
        ),
        (lambda r: init.orthogonal((5,), r), "for a vector"),
        (lambda r: init.he_normal((5, 0), r), "at least 1"),
        (lambda r: init.identity((2, 2, 2), r), "use orthogonal"),
        (lambda r: init.sparse((2, 2, 2), r), "use he_normal"),
        (lambda r: init.sparse((2, 2), r, nonzero=0), "nonzero must be at least 1"),
        (lambda r: init.he_normal((2, 2), r, mode="fan"), "'fan_in' or 'fan_out'"),
        (lambda r: init.he_normal((2, 2), r, nonlinearity="cube"), "no gain is known"),
        (lambda r: init.uniform((2,), r, low=1, high=0), "low must not be above high"),
        (lambda r: init.normal((2,), r, std=-1), "std must be at least 0"),
        (lambda r: init.glorot_normal((2, 2), r, gain=math.nan), "gain must be at least 0"),
        (lambda r: init.truncated_normal((2,), r, std=0), "std must be above 0"),
        (lambda r: init.truncated_normal((2,), r, low=5, high=6), "widen the bounds"),
        (lambda r: init.torch_bias((2,), r, fan_in=0), "fan_in must be at least 1"),
        (lambda r: init.get("glorot"), "unknown initialiser 'glorot'; choose one of"),
        (lambda r: init.get("he_normal", slope=1), "he_normal: .*'slope'"),
        (lambda r: init.get("constant"), "constant: .*'value'"),
    ],
)
def test_errors_say_what_to_do(call, message, rng):
    with pytest.raises(ValueError, match=message):
        call(rng)


def test_get_refuses_other_types():
    with pytest.raises(OptionError, match="a name, a number or a function"):
        init.get(None)


def test_examples():
    result = doctest.testmod(init)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.peers
def test_gains_are_pytorchs():
    torch_init = pytest.importorskip("torch.nn.init", reason="PyTorch is not installed")
    for name in ("linear", "sigmoid", "tanh", "relu", "selu"):
        assert init.gain(name) == torch_init.calculate_gain(name)
    assert init.gain("leaky_relu", 0.2) == torch_init.calculate_gain("leaky_relu", 0.2)

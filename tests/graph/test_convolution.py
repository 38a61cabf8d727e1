"""Convolutions: gradients against central differences, first and second; sequences of different
lengths, layouts, bits over workers, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from fastnn.testing import gradcheck
from tests.convolved import results
from tests.graph.test_gradients import away, weight
from tests.graph.test_second_gradients import first
from tests.graph.test_symbolic import compute

RNG = np.random.default_rng(0)


def kept(array: np.ndarray) -> nn.Parameter:
    """A parameter that lies in memory as convolutions need it."""
    return nn.Parameter(array.shape, lambda shape, rng: array, transposed=True)


Case = tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...], int]
#: label -> function of input, weight and bias; shapes of input and weight; outputs
CASES: dict[str, Case] = {
    "plain": (lambda x, w, b: ops.conv2d(x, w, b), (3, 2, 5, 6), (4, 2, 3, 2), 4),
    "all options": (
        lambda x, w, b: ops.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        (2, 4, 5, 6), (6, 2, 3, 2), 6,
    ),
    "one channel": (
        lambda x, w, b: ops.conv2d(x, w, b, (2, 1), (1, 2), (1, 2)), (3, 1, 9, 11), (6, 1, 3, 4), 6,
    ),
    "one channel, whole vectors": (
        lambda x, w, b: ops.conv2d(x, w, b), (2, 1, 20, 21), (16, 1, 2, 3), 16,
    ),
    "one channel, outputs beyond a vector": (
        lambda x, w, b: ops.conv1d(x, w, b, padding=1), (2, 1, 23), (19, 1, 4), 19,
    ),
    "one by one": (lambda x, w, b: ops.conv2d(x, w, b), (2, 3, 4, 5), (2, 3, 1, 1), 2),
    "depthwise": (
        lambda x, w, b: ops.conv2d(x, w, b, 2, "same", 1, 5), (2, 5, 7, 6), (5, 1, 3, 3), 5,
    ),
    "two outputs a channel": (
        lambda x, w, b: ops.conv2d(x, w, b, groups=3), (2, 3, 4, 4), (6, 1, 2, 2), 6,
    ),
    "causal": (
        lambda x, w, b: ops.conv1d(x, w, b, padding="causal", dilation=2), (2, 3, 7), (4, 3, 3), 4,
    ),
    "transposed": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, (0, 1), 2, (1, 2)),
        (2, 4, 3, 4), (4, 3, 3, 2), 6,
    ),
    "transposed in time": (
        lambda x, w, b: ops.conv_transpose1d(x, w, b, 3), (2, 4, 5), (4, 2, 4), 2,
    ),
    "transposed depthwise": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, groups=3), (2, 3, 4, 3), (3, 1, 3, 2), 3,
    ),
}  # fmt: skip


POOLED: dict[str, Callable[..., Any]] = {
    "max": lambda x: ops.max_pool2d(x, 3, 2, 1),
    "max, dilated": lambda x: ops.max_pool2d(x, 2, 1, 0, 2),
    "average": lambda x: ops.avg_pool2d(x, 3, 2, 1, True, False),
    "adaptive": lambda x: ops.adaptive_avg_pool2d(x, (2, 4)),
    "norm": lambda x: ops.lp_pool2d(x, 2, 2),
    "global average": ops.global_avg_pool,
    "global maximum": ops.global_max_pool,
    "nearest": lambda x: ops.upsample(x, (7, 12)),
    "linear": lambda x: ops.upsample(x, (7, 9), mode="linear"),
}


def apart(*shape: int) -> np.ndarray:
    """Numbers of which no two are nearly the same."""
    return RNG.permutation(np.linspace(-2.0, 2.0, int(np.prod(shape)))).reshape(shape)


@pytest.mark.parametrize("name", POOLED)
def test_gradients_of_pooling(name: str) -> None:
    assert gradcheck(POOLED[name], apart(3, 2, 5, 6))
    assert gradcheck(first(lambda x: ops.square(POOLED[name](x))), apart(3, 2, 5, 6))


@pytest.mark.parametrize("name", POOLED)
def test_tangents_of_pooling(name: str) -> None:
    """Forward mode beside central differences, of the function and of its gradient."""
    x, v = apart(3, 2, 5, 6), RNG.normal(size=(3, 2, 5, 6))
    for function in (POOLED[name], lambda x: ops.gradient(ops.sum(POOLED[name](x) ** 2), x)):
        got = compute(lambda x, f=function: ops.tangent(f(x), x, v), x)
        ahead, behind = (compute(function, x + h * v) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(got, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", [ops.conv1d, ops.conv_transpose1d])
def test_tangents_of_convolutions(op: Callable[..., Any]) -> None:
    """A product of image and weight, and a bias: the tangent along all at once is 2 y - bias."""
    x = RNG.normal(size=(2, 3, 6))
    w = np.tile(RNG.normal(size=(3, 1, 2)), (1, 3, 1))

    class Both(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter(w.shape, lambda shape, rng: w)
            self.bias = nn.Parameter((3,), lambda shape, rng: np.array([0.5, -1.0, 2.0]))

        def forward(self, x: Any) -> Any:
            kernel, bias = self.w * 1.0, self.bias * 1.0
            y, all_of_them = op(x, kernel, bias), [x, kernel, bias]
            found = ops.tangent(y, all_of_them, all_of_them)
            return found - 2.0 * y + ops.reshape(bias, 1, 3, 1)

    np.testing.assert_allclose(Both().to("float64").predict(x), 0.0, atol=1e-12)


def given(name: str, make: Callable[..., Any] = weight) -> tuple[Callable[..., Any], list[Any]]:
    function, image, kernel, outputs = CASES[name]
    return function, [away(image), make(away(kernel, 1)), weight(away((outputs,), 2))]


@pytest.mark.parametrize("make", [weight, kept], ids=["as shown", "transposed"])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, make: Callable[..., Any]) -> None:
    function, inputs = given(name, make)
    assert gradcheck(function, *inputs)


@pytest.mark.parametrize("name", CASES)
def test_second_gradients(name: str) -> None:
    function, inputs = given(name, kept)
    assert gradcheck(first(function), *inputs)


@pytest.mark.parametrize("name", ["all options", "depthwise", "causal", "transposed"])
def test_third_gradients(name: str) -> None:
    """The gradient to a weight is an op that is differentiated in its turn, by its gradient too."""
    function, inputs = given(name)
    assert gradcheck(first(first(lambda *a: ops.tanh(0.2 * function(*a)))), *inputs)


def test_gradient_penalty() -> None:
    """WGAN's (Gulrajani et al. 2017): the norm of the gradient to the input, as a loss."""

    def penalty(x: Any, w: Any, v: Any) -> Any:
        score = ops.sum(ops.conv2d(ops.tanh(ops.conv2d(x, w, None, 2, 1)), v), (1, 2, 3))
        slope = ops.gradient(ops.sum(score), x)
        norm = ops.sqrt(ops.sum(ops.square(slope), (1, 2, 3)))
        return ops.mean(ops.square(norm - 1.0))

    assert gradcheck(penalty, away((3, 2, 6, 5)), kept(away((4, 2, 3, 3), 1)),
                     kept(away((2, 4, 2, 2), 2)))  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bits_are_the_same_on_any_number_of_workers(name: str) -> None:
    function, image, kernel, outputs = CASES[name]
    arrays = [RNG.normal(size=s).astype(np.float32) for s in ((9, *image[1:]), kernel, (outputs,))]
    dy = RNG.normal(size=results(function, *arrays, seed=None)[0].shape).astype(np.float32)
    alone = results(function, *arrays, seed=dy)
    for workers in (2, 3):
        for one, other in zip(
            alone, results(function, *arrays, seed=dy, workers=workers), strict=True
        ):
            np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- sequences


@pytest.mark.parametrize("padding", [0, 2, "same", "valid", "causal"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_sequence_does_not_depend_on_its_padding(padding: Any, stride: int) -> None:
    layer = nn.Conv1d(3, 4, 3, stride=stride, padding=padding, dilation=2, channels="last")
    lengths = np.array([12, 7, 5, 9])
    x = RNG.normal(size=(4, 12, 3)).astype(np.float32)
    other = x.copy()
    for k, n in enumerate(lengths):
        other[k, n:] = np.nan
    y, ends = layer.predict(other, lengths)
    for k, n in enumerate(lengths):
        alone, one = layer.predict(x[k : k + 1, :n], lengths[k : k + 1])
        assert one[0] == ends[k] == alone.shape[1]
        np.testing.assert_array_equal(alone[0], y[k, : ends[k]])
        assert not y[k, ends[k] :].any()
    plain = layer.predict(x[:1])
    np.testing.assert_array_equal(plain, layer.predict(x[:1], lengths[:1])[0])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "layer",
    [
        lambda s: nn.MaxPool1d(3, s, 1, channels="last"),
        lambda s: nn.AvgPool1d(3, s, 1, channels="last"),
        lambda s: nn.AvgPool1d(4, s, 2, count_include_pad=False, channels="last"),
    ],
)
def test_pooling_over_time_does_not_depend_on_padding(layer: Any, stride: int) -> None:
    layer, lengths = layer(stride), np.array([12, 7, 1, 9])
    x = RNG.normal(size=(4, 12, 3)).astype(np.float32)
    other = x.copy()
    for k, n in enumerate(lengths):
        other[k, n:] = np.nan
    y, ends = layer.predict(other, lengths)
    for k, n in enumerate(lengths):
        plain = layer.predict(x[k : k + 1, :n])
        assert ends[k] == plain.shape[1]
        np.testing.assert_allclose(plain[0], y[k, : ends[k]], rtol=1e-6)
        assert not y[k, ends[k] :].any()


@pytest.mark.parametrize("layer", [nn.GlobalAvgPool1d("last"), nn.GlobalMaxPool1d("last")])
def test_global_pooling_over_time(layer: Any) -> None:
    x, lengths = RNG.normal(size=(3, 8, 4)).astype(np.float32), np.array([8, 3, 0])
    x[1, 3:] = x[2] = np.nan
    reduce = np.mean if isinstance(layer, nn.GlobalAvgPool1d) else np.max
    want = [reduce(x[0], 0), reduce(x[1, :3], 0), np.zeros(4)]
    np.testing.assert_allclose(layer.predict(x, lengths), want, rtol=1e-6)
    np.testing.assert_allclose(layer.predict(x[:1]), want[:1], rtol=1e-6)


def test_padding_gets_no_gradient() -> None:
    def function(x: Any, w: Any) -> Any:
        lengths = x.graph.constant(np.array([4, 2]), "i")
        return ops.conv1d(x, w, padding="same", channels="last", lengths=lengths)[0]

    x, w = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(4, 3, 3))
    _, dx, _ = results(function, x, w, seed=RNG.normal(size=(2, 5, 4)))
    assert not dx[0, 4:].any()
    assert not dx[1, 2:].any()
    x[0, 4:], x[1, 2:] = np.nan, np.inf
    assert np.isfinite(results(function, x, w, seed=np.ones((2, 5, 4)))[2]).all()


# ---------------------------------------------------------------- layers


def test_both_layouts_are_the_same() -> None:
    x = RNG.normal(size=(3, 2, 8, 9)).astype(np.float32)
    first_, last = (nn.Conv2d(2, 5, 3, padding=1, channels=c) for c in ("first", "last"))
    last.load_state_dict(first_.state_dict())
    assert first_.weight.shape == last.weight.shape == (5, 2, 3, 3)
    got = last.predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), first_.predict(x))


def test_what_is_shown() -> None:
    assert repr(nn.Conv2d(3, 8, 3)) == "Conv2d(3, 8, kernel_size=3)"
    layer = nn.Conv1d(3, 6, 5, padding="causal", dilation=2, groups=3, bias=False, channels="last")
    assert repr(layer) == (
        "Conv1d(3, 6, kernel_size=5, padding='causal', dilation=2, groups=3, channels='last', "
        "bias=False)"
    )
    layer = nn.ConvTranspose2d(3, 6, (3, 2), stride=2, output_padding=(1, 0))
    assert repr(layer) == (
        "ConvTranspose2d(3, 6, kernel_size=(3, 2), stride=2, output_padding=(1, 0))"
    )


def image(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


REFUSED: dict[str, tuple[Callable[[], Any], type[FastnnError], str]] = {
    "a kernel larger than the input": (
        lambda: nn.Conv2d(1, 1, 5).predict(image(2, 1, 4, 9)), ShapeError,
        r"a kernel of 5 covers 5 places, more than the 4 of input \(4, 9\) with padding; use padd",
    ),
    "dilated": (
        lambda: nn.Conv1d(1, 1, 3, dilation=4).predict(image(2, 1, 8)), ShapeError,
        "a kernel of 3 at dilation 4 covers 9 places",
    ),
    "groups": (
        lambda: nn.Conv2d(4, 6, 3, groups=3), OptionError,
        "expected channels that 3 groups divide, got 4 in and 6 out; choose groups",
    ),
    "groups of a kernel": (
        lambda: compute(lambda x: ops.conv2d(x, image(4, 2, 3, 3), groups=3), image(2, 6, 4, 4)),
        OptionError,
        "expected channels that 3 groups divide, got 6 in and 4 out; choose groups",
    ),
    "layout": (
        lambda: nn.Conv2d(3, 6, 3).predict(image(2, 8, 8, 3)), ShapeError,
        r"expected 3 channels, first, got input of shape \(2, 8, 8, 3\); change in_channels, or",
    ),
    "dimensions": (
        lambda: nn.Conv2d(1, 6, 3).predict(image(2, 8, 8)), ShapeError,
        r"expected an input of 4 dimensions, \(N, C, H, W\), got shape \(2, 8, 8\); reshape",
    ),
    "padding": (
        lambda: nn.Conv2d(1, 6, 3, padding="causal").predict(image(2, 1, 8, 8)), OptionError,
        "expected padding to be a number or one of 'same', 'valid', got 'causal'",
    ),
    "stride": (lambda: nn.Conv1d(1, 6, 3, stride=0), OptionError, "expected stride to be an int"),
    "kernel": (lambda: nn.Conv2d(1, 6, (3, 3, 3)), OptionError, "expected kernel_size to be an"),
    "channels": (
        lambda: nn.Conv1d(1, 6, 3, channels="NHWC"), OptionError, "expected channels 'first' or",
    ),
    "no output": (
        lambda: nn.ConvTranspose1d(1, 6, 3, padding=2).predict(image(2, 1, 2)), ShapeError,
        "expected outputs, but a kernel",
    ),
    "output padding": (
        lambda: nn.ConvTranspose1d(1, 6, 3, output_padding=1).predict(image(2, 1, 2)), OptionError,
        "expected output_padding below stride or dilation, got 1 at stride 1",
    ),
    "half a window of padding": (
        lambda: nn.MaxPool1d(3, padding=2).predict(image(2, 1, 8)), OptionError,
        "expected padding of at most half the kernel, got 2 for a kernel of 3; use less padding",
    ),
    "a window larger than the input": (
        lambda: nn.MaxPool2d(5).predict(image(2, 1, 4, 9)), ShapeError,
        "covers 5 places, more than the 4 .*; use more padding, a smaller kernel or longer input",
    ),
    "norm": (lambda: nn.LPPool1d(0, 2), OptionError, "expected norm_type above 0, got 0"),
    "two sizes": (lambda: nn.Upsample(3, 2), OptionError, "expected either size or scale_factor"),
    "mode": (lambda: nn.Upsample(3, mode="cubic"), OptionError, "expected mode 'nearest'"),
    "padding of a layer": (
        lambda: nn.Conv1d(1, 1, 3, padding="Same"), OptionError,
        "expected padding to be a number or one of 'same', 'valid', 'causal', got 'Same'",
    ),
    "lengths that are floats": (
        lambda: nn.Conv1d(1, 1, 3).predict(image(2, 1, 8), np.array([3.0, 8.0])), ShapeError,
        "conv1d: expected integers as lengths, got floating-point numbers; convert",
    ),
    "lengths of another shape": (
        lambda: nn.GlobalAvgPool1d().predict(image(2, 1, 8), np.array([[3], [8]])), ShapeError,
        r"expected lengths of shape \(2,\), got \(2, 1\)",
    ),
    "lengths too long": (
        lambda: nn.Conv1d(1, 1, 3).predict(image(2, 1, 8), np.array([3, 9])), DataError,
        "inputs: expected lengths in 0..8, the steps of its sequences, got 9",
    ),
    "three shares of two axes": (
        lambda: nn.AdaptiveAvgPool2d((2, 2, 2)), OptionError, "expected output_size to be an",
    ),
    "an image's global pooling": (
        lambda: nn.GlobalAvgPool1d().predict(image(2, 1, 8, 8)), ShapeError, r"\(N, C, T\)",
    ),
    "an infinite factor": (
        lambda: nn.Upsample(scale_factor=np.inf), OptionError, "expected scale_factor to be a num",
    ),
    "no size": (lambda: nn.Upsample(0), OptionError, "expected size to be an integer from 1 on"),
    "a transposed one's padding": (
        lambda: nn.ConvTranspose1d(1, 6, 3, padding="same"), OptionError,  # type: ignore[arg-type]
        "expected padding to be a number, got 'same'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name: str) -> None:
    function, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        function()


def test_numbers_of_numpy_and_lists_are_numbers() -> None:
    two = np.int64(2)
    layers = [
        nn.Conv2d(1, 1, two, [two, 1]), nn.MaxPool2d(two), nn.AdaptiveAvgPool2d([7, 7]),
        nn.Upsample(two), nn.Upsample(scale_factor=np.float32(2)),
    ]  # fmt: skip
    shapes = [layer.predict(image(1, 1, 8, 8)).shape[2:] for layer in layers]
    assert shapes == [(4, 7), (4, 4), (7, 7), (2, 2), (16, 16)]


@pytest.mark.parametrize("layer", [nn.Conv1d(1, 2, 3), nn.AvgPool1d(2), nn.GlobalMaxPool1d()])
def test_lengths_may_be_bytes(layer: Any) -> None:
    x, ends = RNG.normal(size=(3, 1, 8)).astype(np.float32), np.array([3, 8, 0])
    one, other = layer.predict(x, ends), layer.predict(x, ends.astype(np.uint8))
    for want, got in zip(one, other, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("layer", [nn.Conv1d(1, 2, 3, padding=2), nn.MaxPool1d(3, padding=1)])
def test_a_sequence_without_steps_has_no_window_of_padding(layer: Any) -> None:
    x = RNG.normal(size=(2, 1, 8)).astype(np.float32)
    y, ends = layer.predict(x, np.array([0, 8]))
    assert ends[0] == 0 < ends[1]
    assert (y[0] == 0).all()


def test_weights_are_initialised_as_pytorchs() -> None:
    layer = nn.Conv2d(3, 64, 5)
    bound = 1 / np.sqrt(75)
    values = np.array(layer.weight)
    assert abs(values).max() <= bound
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert bound / 2 < abs(np.array(layer.bias)).max() <= bound

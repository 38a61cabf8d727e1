"""Framing and sinc filters: values, gradients, lengths, beside PyTorch, and what is refused."""

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.testing import gradcheck
from tests.convolved import results

RNG = np.random.default_rng(0)
RATE = 8000


def pieces_of(x, length, step):
    """Pieces of signals, one by one."""
    starts = range(0, x.shape[1] - length + 1, step)
    return np.stack([x[:, s : s + length] for s in starts], axis=1)


# ---------------------------------------------------------------- framing


@pytest.mark.parametrize("length", [1, 2, 5, 9])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("samples", [9, 10, 33])
def test_frames_are_the_signals_pieces(length, step, samples):
    x = RNG.standard_normal((3, samples)).astype(np.float32)
    got = nn.Frames(length, step).predict(x)
    np.testing.assert_array_equal(got, pieces_of(x, length, step))


@pytest.mark.parametrize(("length", "step"), [(5, 2), (4, 4), (3, 5), (1, 1)])
def test_gradients_of_frames(length, step):
    assert gradcheck(lambda x: ops.frames(x, length, step) ** 2, RNG.standard_normal((2, 13)))


def test_frames_of_signals_of_different_lengths():
    """A piece that reaches over a signal's end is none; what stands past the end does not count."""
    x, lengths = RNG.standard_normal((4, 12)).astype(np.float32), np.array([12, 7, 4, 2])
    dirty = np.where(np.arange(12) < lengths[:, None], x, np.nan)
    pieces, counts = nn.Frames(4, 3).predict(dirty, lengths)
    np.testing.assert_array_equal(counts, [3, 2, 1, 0])
    for k, (n, count) in enumerate(zip(lengths, counts, strict=True)):
        if count:
            np.testing.assert_array_equal(pieces[k, :count], pieces_of(x[k : k + 1, :n], 4, 3)[0])
        assert not pieces[k, count:].any()


def test_what_cannot_be_framed_is_refused():
    with pytest.raises(OptionError, match="Frames: expected step"):
        nn.Frames(4, 0)
    with pytest.raises(ShapeError, match=r"pieces? of 4 samples, got signals of 3; pad them"):
        nn.Frames(4, 2).predict(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"\(batch, samples\).*take one channel"):
        nn.Frames(4, 2).predict(np.zeros((2, 9, 2)))


# ---------------------------------------------------------------- sinc filters


def layer_of(**options):
    """A layer with bands off their starting places, among them negative numbers and one that
    reaches over half the rate."""
    layer = nn.SincConv(6, 31, RATE, **options)
    rng = np.random.default_rng(1)
    layer.low.value = rng.uniform(-0.3, 0.3, (6, 1))
    layer.band.value = np.array([[0.02], [-0.05], [0.1], [0.4], [-0.01], [0.2]])
    return layer


def test_bands_lie_side_by_side_on_the_mel_scale():
    from fastnn.data.audio import to_mel

    layer = nn.SincConv(40, 101, RATE)
    low, high = layer.frequencies
    assert high[-1] == pytest.approx(RATE / 2)
    steps = np.diff(to_mel(low - layer.min_low_hz))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    np.testing.assert_allclose(high[:-1] - 2 * 50, low[1:] - 50, rtol=1e-5)
    assert low[0] == pytest.approx(80)


def test_filters_pass_their_band_alone():
    layer = nn.SincConv(12, 1001, RATE)
    response = np.abs(np.fft.rfft(layer.filters, 8000))
    hertz = np.arange(response.shape[1])
    for gain, low, high in zip(response, *layer.frequencies, strict=True):
        gain = gain / gain.max()
        assert gain[(hertz > low + 20) & (hertz < high - 20)].min() > 0.9
        assert gain[(hertz < low - 20) | (hertz > high + 20)].max() < 0.1


@pytest.mark.parametrize("channels", ["first", "last"])
def test_outputs_are_convolutions_with_the_filters(channels):
    layer = layer_of(stride=3, padding=4, dilation=2, channels=channels)
    x = RNG.standard_normal((2, 1, 90))
    y = layer.predict(x if channels == "first" else x.transpose(0, 2, 1))
    padded = np.pad(x[:, 0], ((0, 0), (4, 4)))
    windows = pieces_of(padded, 61, 3)[:, :, ::2]
    want = np.einsum("ntk,ok->not", windows, layer.filters)
    want = want if channels == "first" else want.transpose(0, 2, 1)
    np.testing.assert_allclose(y, want, atol=2e-5 * abs(want).max())


def test_gradients_of_sinc_filters():
    layer = nn.SincConv(3, 7, RATE, stride=2)
    layer.low.value, layer.band.value = [[0.05], [-0.2], [0.3]], [[0.1], [0.05], [-0.02]]
    assert gradcheck(layer, RNG.standard_normal((2, 1, 20)))


def test_sequences_of_different_lengths_are_alone():
    layer = layer_of(stride=2, padding="same")
    x, lengths = RNG.standard_normal((3, 1, 80)).astype(np.float32), np.array([80, 55, 31])
    dirty = np.where(np.arange(80) < lengths[:, None, None], x, np.nan).astype(np.float32)
    y, counts = layer.predict(dirty, lengths)
    for k, n in enumerate(lengths):
        alone, (count,) = layer.predict(x[k : k + 1, :, :n], lengths[k : k + 1])
        assert count == counts[k]
        np.testing.assert_array_equal(y[k, :, :count], alone[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_equal_over_workers(dtype):
    layer = layer_of()
    arrays = [RNG.standard_normal((5, 1, 200)), np.array(layer.low.value), layer.band.value]
    arrays = [np.asarray(a, dtype) for a in arrays]
    seed = RNG.standard_normal((5, 6, 57)).astype(dtype)

    def function(x, low, band):
        return ops.conv1d(x, layer.weight(low, band), stride=3)

    first, *others = (results(function, *arrays, seed=seed, workers=n) for n in (1, 2, 3))
    for other in others:
        assert [a.tobytes() for a in first] == [b.tobytes() for b in other]


def by_torch(torch, layer, x, low, band, seed, **options):
    """Ravanelli and Bengio's formula, its value and its gradients."""
    x, low, band, seed = (torch.tensor(a) for a in (x, low, band, seed))
    for value in (x, low, band):
        value.requires_grad_()
    half, taps, rate = layer.kernel_size // 2, layer.kernel_size, layer.sample_rate
    n = 2 * np.pi * torch.arange(-half, 0, dtype=x.dtype) / rate
    places = torch.linspace(0, taps / 2 - 1, half, dtype=x.dtype)
    window = 0.54 - 0.46 * torch.cos(2 * np.pi * places / taps)
    begin = layer.min_low_hz + torch.abs(low * rate)
    end = torch.clamp(begin + layer.min_band_hz + torch.abs(band * rate), max=rate / 2)
    left = (torch.sin(end @ n[None]) - torch.sin(begin @ n[None])) / (n / 2) * window
    width = end - begin
    filters = torch.cat([left, 2 * width, torch.flip(left, [1])], 1) / (2 * width)
    y = torch.nn.functional.conv1d(x, filters[:, None], **options)
    y.backward(seed)
    return [y.detach(), x.grad, low.grad, band.grad]


@pytest.mark.peers
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("options", [{}, {"stride": 3, "padding": 7}, {"dilation": 2}], ids=str)
def test_values_and_gradients_beside_pytorch(dtype, tolerance, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    layer = layer_of(**options)
    x, low, band = (
        RNG.standard_normal((3, 1, 150)), np.array(layer.low.value), np.array(layer.band.value)
    )  # fmt: skip
    x, low, band = (np.asarray(a, dtype) for a in (x, low, band))
    shape = torch.nn.functional.conv1d(torch.zeros(3, 1, 150), torch.zeros(6, 1, 31), **options)
    seed = RNG.standard_normal(shape.shape).astype(dtype)
    ours = results(
        lambda x, low, band: ops.conv1d(x, layer.weight(low, band), **options), x, low, band,
        seed=seed,
    )  # fmt: skip
    # float32's rounding of 2 pi f t is not that of the formula: it is compared with float64's
    exact = [np.asarray(a, np.float64) for a in (x, low, band, seed)]
    for got, want in zip(ours, by_torch(torch, layer, *exact, **options), strict=True):
        want = want.numpy()
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * abs(want).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 30}, "an odd kernel_size.*got 30; take 31"),
        ({"kernel_size": 1}, "kernel_size"),
        ({"out_channels": 0}, "out_channels"),
        ({"sample_rate": 200}, "below half the sample rate"),
        ({"sample_rate": float("nan")}, "sample_rate"),
        ({"min_low_hz": -1}, "from 0 on"),
        ({"channels": "middle"}, "'first' or 'last'"),
        ({"stride": 0}, "stride"),
        ({"padding": -1}, "padding"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        nn.SincConv(**{"out_channels": 4, "kernel_size": 31, "sample_rate": RATE, **options})


@pytest.mark.parametrize("shape", [(2, 2, 90), (2, 90), (2, 90, 1)])
def test_other_inputs_are_refused(shape):
    with pytest.raises(ShapeError, match=r"one channel, shape \(batch, 1, samples\)"):
        nn.SincConv(4, 31, RATE).predict(np.zeros(shape, np.float32))


def test_a_signal_shorter_than_the_filters_is_refused():
    with pytest.raises(ShapeError, match="a kernel of 31"):
        nn.SincConv(4, 31, RATE).predict(np.zeros((2, 1, 30), np.float32))

"""Pictures of filters show their numbers, by frequency."""

import numpy as np
import pytest

from fastnn import nn, plot
from fastnn.data.audio import from_mel, to_mel
from fastnn.errors import DataError, OptionError, ShapeError

pytest.importorskip("matplotlib")
RATE = 8000
#: pure tones under a window, in no order
HERTZ = np.array([3000.0, 500.0, 1500.0, 2500.0, 1000.0])
TAPS = np.cos(2 * np.pi * HERTZ[:, None] * (np.arange(101) - 50) / RATE) * np.hamming(101)


def test_filters_are_drawn_in_time_by_frequency():
    axes = plot.filters(TAPS, RATE).axes
    assert [ax.get_title() for ax in axes] == [f"{f:.0f} Hz" for f in np.sort(HERTZ)]
    line = axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), TAPS[1])
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [-6.25, 6.25])
    some = plot.filters(TAPS, RATE, count=2).axes
    assert [ax.get_title() for ax in some] == ["500 Hz", "3000 Hz"]


def test_responses_are_sorted_and_stand_beside_the_mel_scale():
    image, curve = plot.frequency_responses(TAPS, RATE).axes
    shown = image.images[0].get_array()
    assert shown.shape[0] == len(TAPS)
    frequencies = np.linspace(0, RATE / 2, shown.shape[1])
    np.testing.assert_allclose(frequencies[shown.argmax(axis=1)], np.sort(HERTZ), atol=5)
    np.testing.assert_allclose(shown.max(axis=1), 0, atol=1e-9)
    centres, mel = (line.get_ydata() for line in curve.lines)
    np.testing.assert_allclose(centres, np.sort(HERTZ), atol=5)
    np.testing.assert_allclose(np.diff(to_mel(mel)), to_mel(RATE / 2) / 6)
    np.testing.assert_allclose(mel[0], from_mel(to_mel(RATE / 2) / 6))


def test_layers_are_drawn_as_their_filters():
    sinc, plain = nn.SincConv(5, 101, RATE), nn.Conv1d(1, 5, 101)
    plain.weight.value = TAPS[:, None]
    line = plot.filters(plain, RATE).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), TAPS[1], atol=1e-6)
    got = [ax.lines[0].get_ydata() for ax in plot.filters(sinc).axes]
    np.testing.assert_array_equal(got, sinc.filters)
    centres = plot.frequency_responses(sinc).axes[1].lines[0].get_ydata()
    low, high = sinc.frequencies
    assert ((centres > low) & (centres < high)).all()


@pytest.mark.parametrize("draw", [plot.filters, plot.frequency_responses])
def test_what_are_no_filters_is_refused(draw):
    with pytest.raises(ShapeError, match=r"\(filters, taps\).*got \(5, 2, 9\)"):
        draw(np.zeros((5, 2, 9)), RATE)
    with pytest.raises(DataError, match="finite"):
        draw(TAPS * np.nan, RATE)
    with pytest.raises(OptionError, match="samples a second of the signals, got None"):
        draw(TAPS)
    with pytest.raises(OptionError, match="a rate above 0"):
        draw(TAPS, 0)

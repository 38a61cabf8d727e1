"""Masks over spectra: their number, widths and places; off in evaluation; gradients and bits."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError, ShapeError
from fastnn.testing import gradcheck
from tests.nn.test_noise import trained

N, FRAMES, FEATURES = 400, 30, 12
X = np.ones((N, FRAMES, FEATURES))


def hidden(seed=0, workers=1, **options):
    """Where the masks of a step are: (N, frames, features)."""
    layer = nn.SpecAugment(**options, value=7.0)
    y, _ = trained(layer, X, FEATURES, seed, workers=workers)
    assert set(np.unique(y)) <= {1.0, 7.0}
    return y == 7.0


def runs(line):
    """How many separate runs of True there are, and the longest."""
    edges = np.diff(np.concatenate([[0], line.astype(int), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return len(begins), int((ends - begins).max(initial=0))


def test_a_band_hides_whole_features_up_to_its_width():
    mask = hidden(frequency_masks=1, frequency_width=4, time_masks=0)
    assert (mask.all(1) == mask.any(1)).all()
    found = [runs(line) for line in mask[:, 0]]
    assert max(count for count, _ in found) == 1
    assert {longest for _, longest in found} == {0, 1, 2, 3, 4}
    assert mask.mean() == pytest.approx(2 / FEATURES, abs=0.02)  # 0 to 4, 2 on average
    assert mask[:, 0].any(0).all()  # everywhere


def test_a_stretch_hides_whole_frames_up_to_its_share():
    mask = hidden(frequency_masks=0, time_masks=1, time_width=20, time_share=0.2)
    assert (mask.all(2) == mask.any(2)).all()
    found = [runs(line) for line in mask[:, :, 0]]
    assert max(count for count, _ in found) == 1
    assert max(longest for _, longest in found) == 6
    assert mask.mean() == pytest.approx(3 / FRAMES, abs=0.02)


def test_several_masks_are_drawn_apart_and_anew():
    mask = hidden(frequency_masks=2, frequency_width=3, time_masks=2, time_width=4)
    assert max(runs(line)[0] for line in mask.all(2)) == 2
    assert len({line.tobytes() for line in mask.all(2)}) > N / 2
    other = hidden(seed=1, frequency_masks=2, frequency_width=3, time_masks=2, time_width=4)
    assert (mask != other).any()


def test_masks_lie_within_the_valid_frames():
    class Layer(nn.Module):
        def __init__(self):
            self.layer = nn.SpecAugment(0, 0, 2, 20, 0.5, value=7.0)
            self.seen = nn.Parameter((N, FRAMES, FEATURES), 0.0, trainable=False)
            self.scale = nn.Parameter((1,), 1.0)

        def forward(self, x, lengths):
            y = self.layer(x * self.scale, lengths)
            if x.graph.training:
                ops.store_state(y, self.seen)
            return y

    model, lengths = Layer(), np.random.default_rng(0).integers(1, FRAMES + 1, N)
    step = fnn.compile(model, lambda y, _: y.sum(), optim.SGD(lr=0.0), dtype="float64")
    step((X, lengths), X)
    mask = (np.array(model.seen.value) == 7.0)[:, :, 0]
    assert not (mask & (np.arange(FRAMES) >= lengths[:, None])).any()
    for line, length in zip(mask, lengths, strict=True):
        assert line.sum() <= 2 * np.ceil(length / 2)
    assert mask[lengths > 20].any(0)[:15].all()


def test_evaluation_changes_nothing():
    layer = nn.SpecAugment(2, 6, 2, 9, 1.0)
    x = np.random.default_rng(0).standard_normal((3, FRAMES, FEATURES)).astype(np.float32)
    np.testing.assert_array_equal(layer.predict(x), x)


def test_gradients():
    assert gradcheck(
        nn.SpecAugment(1, 4, 1, 9, 0.5), np.random.default_rng(1).normal(size=(3, 7, 5))
    )


def test_the_same_bits_on_any_number_of_workers():
    one, two, three = (hidden(workers=n).tobytes() for n in (1, 2, 3))
    assert one == two == three


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequency_masks": -1}, "frequency_masks"),
        ({"time_width": 1.5}, "time_width"),
        ({"time_share": 1.2}, r"time_share in \[0, 1\], got 1.2"),
        ({"value": float("nan")}, "value"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        nn.SpecAugment(**options)


def test_other_inputs_are_refused():
    with pytest.raises(ShapeError, match=r"\(batch, frames, features\), got \(2, 9\)"):
        nn.SpecAugment().predict(np.zeros((2, 9), np.float32))

"""Words as vectors of their characters."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError, ShapeError

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 9, (2, 3, 7))
LENGTHS = np.array([[7, 4, 1], [2, 0, 3]])


def naive(model, ids, lengths):
    """Each word alone, character by character."""
    found = np.zeros((*ids.shape[:2], model.output_size))
    vectors = model.vectors.weight.value.astype(np.float64)
    for i, j in np.ndindex(ids.shape[:2]):
        x = vectors[ids[i, j, : lengths[i, j]]]
        if not len(x):
            continue
        features = []
        for layer in model.convolutions:
            w, b = layer.weight.value, layer.bias.value
            size = w.shape[2]
            before = (size - 1) // 2
            padded = np.pad(x, ((before, size - 1 - before), (0, 0)))
            windows = [padded[t : t + size] for t in range(len(x))]
            features.append(np.max([np.einsum("tc,oct->o", v, w) + b for v in windows], axis=0))
        found[i, j] = np.concatenate(features)
    return found


@pytest.mark.parametrize("widths", [3, (2, 3, 5)])
def test_each_word_is_what_its_own_characters_make_of_it(widths):
    model = nn.CharCNN(9, embedding=4, filters=5, widths=widths)
    got = model.predict(IDS, LENGTHS)
    np.testing.assert_allclose(got, naive(model, IDS, LENGTHS), rtol=1e-5, atol=1e-6)
    assert not got[1, 1].any()
    padded = np.where(np.arange(7) < LENGTHS[..., None], IDS, 0)
    np.testing.assert_array_equal(model.predict(padded, LENGTHS), got)
    full = model.predict(IDS)
    np.testing.assert_allclose(full, naive(model, IDS, np.full((2, 3), 7)), rtol=1e-5, atol=1e-6)


def test_it_learns_endings():
    model = nn.Sequential(nn.CharCNN(9, filters=8), nn.Linear(8, 2))
    words = RNG.integers(1, 9, (200, 6))
    y = (words[:, 2] > 4).astype(np.int64)
    words[:, 3:] = 0
    trainer = fnn.Trainer(model, "cross_entropy", fnn.optim.Adam(lr=0.02), workers=1)
    history = trainer.fit(words, y, epochs=30, batch_size=20, verbose=False)
    assert history["loss"][-1] < 0.3 * history["loss"][0]


def test_bad_arguments():
    with pytest.raises(OptionError, match="widths"):
        nn.CharCNN(9, widths=())
    with pytest.raises(OptionError, match="filters"):
        nn.CharCNN(9, filters=0)
    with pytest.raises(ShapeError, match="characters as integers"):
        nn.CharCNN(9).predict(np.ones((2, 3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"of shape \(2, 3\)"):
        nn.CharCNN(9).predict(IDS, LENGTHS[:, :2].copy())

"""Spoken digits: features, splits, and that it learns."""

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import spoken_digits as task


def test_features_are_cepstra_with_deltas(tones):
    found = task.features(tones.waveforms[:3])
    frames = [1 + (len(w) - 200) // 80 for w in tones.waveforms[:3]]
    assert [f.shape for f in found] == [(n, task.FEATURES) for n in frames]


def test_it_learns_tones(tones):
    train, test = tones.official_split()
    trainer, history, accuracy = task.train_spoken_digits(
        train, test, hidden=12, layers=1, epochs=8, batch_size=10, lr=0.02, workers=1,
        verbose=False,
    )  # fmt: skip
    assert accuracy > 0.9
    assert history["val_accuracy"][-1] == accuracy
    assert trainer.step == 8 * 7


def test_a_recordings_logits_depend_on_it_alone(tones):
    model = task.SpokenDigitModel(hidden=8, layers=2)
    frames = task.features(tones.waveforms[:6])
    together = task.predict_sequences(model, frames)
    for frame, logits in zip(frames, together, strict=True):
        alone = task.predict_sequences(model, [frame], multiple=1)[0]
        np.testing.assert_allclose(alone, logits, rtol=1e-5, atol=1e-6)


def test_an_unknown_split_is_refused():
    with pytest.raises(OptionError, match="'official' or 'speaker'"):
        task.splits("random")


def test_the_public_set(real_data):
    train, test = task.splits("official")
    some = np.random.default_rng(0).permutation(len(train))[:300]
    *_, accuracy = task.train_spoken_digits(
        train.take(some), test, hidden=24, layers=1, epochs=6, lr=0.01, workers=1, verbose=False
    )
    assert accuracy > 0.6
    assert len(task.splits("speaker")[1]) == 1000

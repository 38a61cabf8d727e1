"""Classes of recordings by a net on samples: the net, pieces, what it learns, what is written."""

import wave

import numpy as np
import pytest

from fastnn.data.audio_folder import Recordings
from fastnn.errors import DataError, OptionError
from fastnn.tasks import raw_audio as task
from fastnn.tasks import recordings as splits
from tests.tasks.foreign import another_order, refused

SMALL = dict(channels=6, batch_size=10, workers=1, verbose=False)


@pytest.fixture(scope="session")
def pitches(tones):
    """Three of the ten pitches: recordings to train and to test with."""
    parts = tones.take(tones.labels < 9).official_split()
    found = []
    for part in parts:
        recordings = splits.of_digits(part)
        low = Recordings(
            recordings.waveforms, part.labels // 3, recordings.speakers, recordings.names,
            ("low", "middle", "high"), recordings.rate,
        )  # fmt: skip
        found.append(low)
    return tuple(found)


@pytest.mark.parametrize("front", ["sinc", "conv"])
def test_it_learns_pitches(pitches, front):
    train, test = pitches
    trainer, history, accuracy = task.train_raw_audio(
        train, test, front=front, epochs=6, lr=0.02, **SMALL
    )
    assert accuracy > 0.9
    assert history["val_accuracy"][-1] == accuracy
    assert trainer.model.options["front"] == front


def test_training_with_changes_has_the_same_bits_on_any_number_of_workers(pitches):
    train, test = (part.take(slice(0, 20)) for part in pitches)
    options = {**SMALL, "epochs": 1, "augment": task.usual_changes(train.rate)}
    found = []
    for workers in (1, 2):
        trainer, *_ = task.train_raw_audio(train, test, **{**options, "workers": workers})
        found.append([p.value.tobytes() for p in trainer.model.parameters()])
    assert found[0] == found[1]


def test_a_recordings_chances_depend_on_it_alone(pitches):
    model = task.RawAudioNet(3, 8000, channels=4)
    signals = [*pitches[1].waveforms[:5], np.ones(7, np.float32)]
    together = task.class_chances(model, signals)
    np.testing.assert_allclose(together.sum(1), 1)
    for signal, chances in zip(signals, together, strict=True):
        alone = task.class_chances(model, [signal])[0]
        np.testing.assert_allclose(alone, chances, rtol=1e-4, atol=1e-6)


def test_a_long_recording_is_heard_in_pieces():
    parts = task.pieces(np.arange(10, dtype=np.float32), 1, 4)
    assert [len(part) for part in parts] == [4, 3, 3]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(10))
    model, rng = task.RawAudioNet(3, 8000, channels=4), np.random.default_rng(0)
    signal = rng.standard_normal(4000).astype(np.float32)
    whole = task.class_chances(model, [signal], seconds=0.25)[0]
    halves = task.class_chances(model, [signal[:2000], signal[2000:]])
    np.testing.assert_allclose(whole, halves.mean(0), rtol=1e-5)


def test_signals_are_prepared_alike_whatever_their_loudness():
    x = np.random.default_rng(0).standard_normal(2000)
    found = task.prepared(x, 8000)
    np.testing.assert_allclose(found, task.prepared(0.01 * x + 3, 8000), atol=1e-5)
    assert np.mean(np.square(found)) == pytest.approx(1, abs=1e-5)
    short = task.prepared(np.ones(5), 8000)
    assert short.shape == (1200,)
    assert not short.any()
    with pytest.raises(DataError, match="not finite"):
        task.prepared([1, np.nan], 8000)


def test_what_is_written_is_read_again(pitches, tmp_path):
    train, test = pitches
    trainer, *_ = task.train_raw_audio(train, test, epochs=4, lr=0.02, **SMALL)
    trainer.save(tmp_path / "model.safetensors")
    task.save_description(tmp_path / "model.safetensors", trainer.model, train.classes, 2.0)
    refused(task.load_recogniser, tmp_path, another_order("classes"))
    recogniser = task.load_recogniser(tmp_path)
    assert (recogniser.classes, recogniser.rate, recogniser.seconds) == (train.classes, 8000, 2.0)
    signal = test.waveforms[0]
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(4)
        file.setframerate(8000)
        file.writeframes((signal * 2**31).astype("<i4").tobytes())
    found = recogniser.recognise(tmp_path / "a.wav")
    want = task.class_chances(trainer.model, [signal], 2.0)[0]
    assert [name for name, _ in found] == [train.classes[k] for k in np.argsort(-want)]
    np.testing.assert_allclose([c for _, c in found], np.sort(want)[::-1], atol=1e-5)
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.ones(3200, "<i2").tobytes())
    assert len(recogniser.recognise(tmp_path / "b.wav")) == 3
    with pytest.raises(DataError, match="expected 8000 samples a second, got 16000"):
        recogniser.recognise(tmp_path / "b.wav", convert=False)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"low",\n', ""))
    with pytest.raises(DataError, match="expected the description of a model of recordings"):
        task.load_recogniser(tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda: task.RawAudioNet(3, 8000, front="mel"), lambda: task.RawAudioNet(0, 8000),
        lambda: splits.words(split="random"), lambda: splits.words(".", public=True),
        lambda: splits.languages(None), lambda: splits.of_digits(None, "age"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(call):
    with pytest.raises(OptionError, match="expected"):
        call()


def test_digits_by_digit_and_by_speaker(tones):
    by_digit, by_speaker = splits.of_digits(tones), splits.of_digits(tones, "speaker")
    np.testing.assert_array_equal(by_digit.labels, tones.labels)
    assert by_speaker.classes == ("george", "lucas")
    assert [by_speaker.classes[k] for k in by_speaker.labels] == tones.speakers.tolist()


def test_the_public_set(real_data):
    train, test = splits.words()
    some = np.random.default_rng(0).permutation(len(train))[:160]
    *_, accuracy = task.train_raw_audio(
        train.take(some), test.take(slice(0, 300, 4)), channels=12, epochs=5, lr=0.02, workers=1,
        verbose=False,
    )  # fmt: skip
    assert accuracy > 0.3
    train, test = splits.speakers()
    assert len(train.classes) == 6
    assert (len(train), len(test)) == (2700, 300)

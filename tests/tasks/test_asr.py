"""Speech recognition: data, training, the description, transcribing a file."""

import wave

import numpy as np
import pytest
from click.testing import CliRunner

from fastnn.cli import group
from fastnn.data.transcribed import Transcribed, load_an4, load_transcribed
from fastnn.errors import DataError, OptionError
from fastnn.tasks import asr
from fastnn.tasks.speech_alignment import align_text, draw_alignment, first_fitting, fits
from tests.tasks.foreign import another_order, refused


def write_wave(path, samples, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 20000).astype("<i2").tobytes())


def tones(text, random):
    """A tone for each letter."""
    pitch = {"a": 500, "b": 1200, " ": 0}
    time = np.arange(1600) / 8000
    parts = [np.sin(2 * np.pi * pitch[c] * time) * (c != " ") for c in text]
    return np.concatenate(parts) + 0.01 * random.standard_normal(1600 * len(text))


@pytest.fixture
def recordings(tmp_path):
    random = np.random.default_rng(0)
    for number, text in enumerate(["a b", "b a", "a", "b", "a b a", "b a b"]):
        write_wave(tmp_path / f"{number}.wav", tones(text, random))
        (tmp_path / f"{number}.txt").write_text(text + "\n")
    return tmp_path


def test_train_and_transcribe(recordings, tmp_path):
    output = tmp_path / "run"
    run = CliRunner().invoke(
        group(),
        ["train", "asr", "--data", str(recordings), "--test", str(recordings), "--hidden", "16",
         "--layers", "1", "--dropout", "0", "--epochs", "60", "--batch-size", "3", "--lr", "0.02",
         "--output", str(output), "--quiet"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "WER with words" in run.output
    recogniser = asr.load_speech_recogniser(output)
    assert [recogniser.transcribe(recordings / f"{n}.wav") for n in (0, 3)] == ["a b", "b"]
    said = CliRunner().invoke(
        group(), ["transcribe", str(recordings / "1.wav"), "--checkpoint", str(output),
                  "--alignment", str(tmp_path / "said.png")],
    )  # fmt: skip
    assert said.output.strip() == "b a"
    for picture in (output / "alignment.png", tmp_path / "said.png"):
        assert picture.stat().st_size > 1000
    check_alignment(recogniser, recogniser.frames(recordings / "1.wav"))
    write_wave(tmp_path / "fast.wav", np.zeros(4000), rate=16000)
    with pytest.raises(DataError, match="expected 8000 samples a second, got 16000"):
        recogniser.transcribe(tmp_path / "fast.wav", convert=False)
    recogniser.transcribe(tmp_path / "fast.wav")
    (output / "model.json").write_text("{}")
    with pytest.raises(DataError, match="speech recogniser"):
        asr.load_speech_recogniser(output)


def check_alignment(recogniser, frames):
    """A tone of 7 joined frames for each letter of "b a": its peak is among them, or beside them,
    and the picture shows what was computed."""
    steps = len(recogniser.front.joined(frames))
    for text in ("b a", ""):
        probabilities, places = align_text(recogniser, frames, text)
        assert probabilities.shape == (steps, len(recogniser.symbols))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(np.unique(places[places >= 0]), np.arange(len(text)))
    _, places = align_text(recogniser, frames, "b a")
    assert np.all(np.diff(places[places >= 0]) >= 0)
    assert np.flatnonzero(places == 0).max() < steps / 2 < np.flatnonzero(places == 2).min()
    figure = draw_alignment(recogniser, frames, "b a")
    assert [text.get_text() for text in figure.axes[0].texts] == ["b", "␣", "a"]
    lines = [line.get_ydata() for line in figure.axes[0].lines]
    shown = [0, *sorted(recogniser.symbols.index(c) for c in "b a")]
    np.testing.assert_array_equal(lines, align_text(recogniser, frames, "b a")[0][:, shown].T)
    with pytest.raises(DataError, match="expected characters of the training texts, got 'z'"):
        align_text(recogniser, frames, "z")
    # as many letters as frames fit, but not with a blank between doubled ones
    assert fits(recogniser, frames, ("ab" * steps)[:steps])
    for text in ("a" * steps, ("ab" * steps)[: steps + 1], "z", ""):
        assert not fits(recogniser, frames, text)
    with pytest.raises(DataError, match="'the alignment'"):
        align_text(recogniser, frames, "a" * steps)


def test_a_transducer(recordings, tmp_path):
    data = load_transcribed(recordings)
    trainer, history, scores, made = asr.train_asr(
        data, data, hidden=16, layers=1, dropout=0.0, epochs=12, batch_size=3, lr=0.02,
        transducer=True, workers=1, verbose=False,
    )  # fmt: skip
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert set(scores) == {"CER", "WER", "CER with beam", "WER with beam"}
    trainer.save(tmp_path / "model.safetensors")
    asr.save_description(made, tmp_path / "model.safetensors")
    again = asr.load_speech_recogniser(tmp_path / "model.safetensors")
    assert again.is_transducer
    assert first_fitting(again, data) is None
    with pytest.raises(OptionError, match="expected a recogniser with CTC"):
        align_text(again, np.zeros((30, 39), np.float32), "a")
    said = CliRunner().invoke(
        group(), ["transcribe", str(recordings / "1.wav"), "--checkpoint", str(tmp_path),
                  "--alignment", str(tmp_path / "said.png")],
    )  # fmt: skip
    assert "--alignment: expected with a model with CTC" in said.output
    refused(asr.load_speech_recogniser, tmp_path, another_order("symbols"))
    refused(asr.load_speech_recogniser, tmp_path, another_order("texts"))
    for with_words in (True, False):
        read = made.texts_of(asr.frames_of(data, made.front), with_words)
        assert [
            again.transcribe(recordings / f"{n}.wav", with_words=with_words) for n in (0, 5)
        ] == [
            read[0],
            read[5],
        ]


def test_folders(recordings):
    data = load_transcribed(recordings)
    assert data.rate == 8000
    assert data.texts[:2] == ["a b", "b a"]
    write_wave(recordings / "6.wav", np.zeros(100), rate=11025)
    (recordings / "6.txt").write_text("a")
    with pytest.raises(DataError, match=r"expected 8000 samples a second.* got 11025"):
        load_transcribed(recordings)
    (recordings / "6.txt").write_text(" ")
    with pytest.raises(DataError, match="expected a transcript, got nothing"):
        load_transcribed(recordings)
    (recordings / "6.txt").write_text("a\0b")
    with pytest.raises(DataError, match=r"6\.txt: .* control character '\\x00' after 'a'; .*UTF-8"):
        load_transcribed(recordings)
    with pytest.raises(DataError, match=r"none: .* there is no such folder; check the path"):
        load_transcribed(recordings / "none")
    with pytest.raises(DataError, match=r"6\.txt: .* got a file; check the path"):
        load_transcribed(recordings / "6.txt")
    (recordings / "none").mkdir()
    with pytest.raises(DataError, match=r"none: expected recordings, \*\.wav.* got none"):
        load_transcribed(recordings / "none")
    (recordings / "6.txt").write_text("\ufeffa b")
    (recordings / "6.wav").unlink()
    write_wave(recordings / "6.WAV", np.zeros(100))
    (recordings / "._6.WAV").write_text("what another system keeps beside it")
    assert load_transcribed(recordings).texts[-1] == "a b"


def test_an4(tmp_path, monkeypatch):
    for part, folder in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        (tmp_path / "etc").mkdir(exist_ok=True)
        place = tmp_path / "feat" / folder
        place.mkdir(parents=True)
        (tmp_path / "etc" / f"an4_{part}.fileids").write_text(f"{folder}/x\n")
        (tmp_path / "etc" / f"an4_{part}.transcription").write_text("<s> SIX TWO </s> (x)\n")
        numbers = np.arange(26, dtype=">f4")
        (place / "x.mfc").write_bytes(np.array([26], ">i4").tobytes() + numbers.tobytes())
    train, test = load_an4(folder=tmp_path)
    assert train.texts == test.texts == ["SIX TWO"]
    np.testing.assert_array_equal(train.recordings[0], np.arange(26).reshape(2, 13))
    path = tmp_path / "feat" / "an4_clstk" / "x.mfc"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated"):
        load_an4(folder=tmp_path)
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    with pytest.raises(DataError, match="FASTNN_DATA"):
        load_an4()


def test_texts_that_no_language_model_takes():
    data = Transcribed([np.ones(4000, np.float32)], ["<s> a"], 8000)
    with pytest.raises(DataError, match="which begin and end each, got '<s>' in one"):
        asr.train_asr(data, data, callbacks=[object()])  # no training begins, which would refuse it


def test_recordings_that_are_too_short_for_their_texts(caplog):
    """A frame for each character, and one between doubled ones; those without room are told."""
    front, frames = asr.Front(), [np.zeros((12, 39), np.float32)] * 2  # 4 joined frames
    with caplog.at_level("WARNING", "fastnn"):
        asr.check_room(frames, ["abab", "aab"], front)
        assert not caplog.text
        asr.check_room(frames, ["abab", "aabb"], front)
    assert "1 of 2 recordings are too short for their texts" in caplog.text
    assert "4 joined frames for 'aabb', which needs 6" in caplog.text
    with pytest.raises(DataError, match=r"asr: expected recordings that are long enough .* 'aabb'"):
        asr.check_room(frames, ["aabb", "ababa"], front)
    data = Transcribed([np.ones(400, np.float32)], ["a b c"], 8000)
    with pytest.raises(DataError, match="do the texts belong to other recordings"):
        asr.train_asr(data, data, callbacks=[object()])


def test_no_recordings():
    with pytest.raises(DataError, match="expected recordings"):
        asr.train_asr(Transcribed([], []), Transcribed([], []))

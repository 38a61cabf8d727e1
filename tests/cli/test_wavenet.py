"""`fastnn train wavenet`, and the sound of it."""

import wave

from click.testing import CliRunner

from fastnn import cli
from fastnn.tasks import wavenet as task


def run(*arguments):
    return CliRunner().invoke(cli.group(), [str(a) for a in arguments])


def test_trains_and_says(tmp_path, monkeypatch):
    from fastnn import data
    from tests.tasks.conftest import tones

    recordings = tones.__wrapped__().take(slice(40, 70))
    monkeypatch.setattr(data, "load_spoken_digits", lambda: recordings)
    folder = tmp_path / "run"
    small = ("--channels", 2, "--skip", 3, "--layers", 2, "--epochs", 1, "--workers", 1)
    result = run("train", "wavenet", *small, "--output", folder)
    assert result.exit_code == 0, result.output
    assert "test bits" in result.output
    assert "linear predictor of 32 samples has" in result.output
    assert task.load_wavenet(folder).layers == 2
    sound = tmp_path / "seven.wav"
    result = run("sample", folder, "--digit", 7, "--seconds", 0.01, "--output", sound)
    assert result.exit_code == 0, result.output
    with wave.open(str(sound)) as file:
        assert file.getnframes() == 80
    result = run("sample", folder, "--prime", "to be")
    assert result.exit_code == 2
    assert "--prime is for models of text only" in result.output
    result = run("train", "wavenet", *small, "--output", folder, "--judge", tmp_path / "none")
    assert result.exit_code == 1
    assert "expected the checkpoint of a model of recordings" in result.output

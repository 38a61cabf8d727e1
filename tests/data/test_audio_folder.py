"""Recordings in folders: classes, speakers, splits that keep them apart, and what is refused."""

import tarfile
import wave

import numpy as np
import pytest

from fastnn import data
from fastnn.data import sources, speech_commands
from fastnn.data.audio_folder import Recordings
from fastnn.errors import DataError, OptionError

RATE = 8000


def write(path, count=80, rate=RATE, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.arange(count * channels) % 100).astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path):
    """Two languages, four speakers of each; one speaks both."""
    for language, names in {"de": "abcd", "en": "defg"}.items():
        for name in names:
            for k in range(3):
                write(tmp_path / language / name / f"{k}.wav", 80 + k)
    (tmp_path / "_background_").mkdir()
    (tmp_path / "README").write_text("a file")
    return tmp_path


def test_classes_speakers_and_rate(folder):
    found = data.load_recordings(folder)
    assert found.classes == ("de", "en")
    assert found.rate == RATE
    assert len(found) == 24
    np.testing.assert_array_equal(found.labels, np.repeat([0, 1], 12))
    assert "".join(found.speakers) == "aaabbbcccdddddd" + "eeefffggg"
    assert found.names[1] == "de/a/1.wav"
    assert found.waveforms[1].shape == (81,)
    assert found.waveforms[1].dtype == np.float32
    assert data.load_recordings(folder, classes=["en"]).classes == ("en",)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_no_speaker_is_in_both_parts(folder, seed, share):
    found = data.load_recordings(folder)
    train, test = found.split_by_speaker(share, seed)
    assert not set(train.speakers) & set(test.speakers)
    assert sorted([*train.names, *test.names]) == sorted(found.names)
    for part in (train, test):
        assert set(part.labels.tolist()) == {0, 1}
    again = found.split_by_speaker(share, seed)[1]
    np.testing.assert_array_equal(test.names, again.names)


def test_given_speakers_are_held_out(folder):
    test = data.load_recordings(folder).split_by_speaker(held_out=["d"])[1]
    assert set(test.speakers) == {"d"}
    assert len(test) == 6
    with pytest.raises(OptionError, match=r"got \['z'\]; these have no recordings"):
        data.load_recordings(folder).split_by_speaker(held_out="z")


@pytest.mark.parametrize("share", [0.01, 0.25, 0.99])
def test_recordings_are_drawn_from_each_class(folder, share):
    found = data.load_recordings(folder)
    train, test = found.split(share)
    for label in (0, 1):
        want = min(max(round(share * 12), 1), 11)
        assert (test.labels == label).sum() == want
        assert (train.labels == label).sum() == 12 - want


def test_a_speaker_is_found_in_the_name(tmp_path):
    for name in ("7_theo_0", "7_lucas_1"):
        write(tmp_path / "seven" / f"{name}.wav")
    assert data.load_recordings(tmp_path).speakers.tolist() == ["7", "7"]
    found = data.load_recordings(tmp_path, speaker=r"\d_([a-z]+)_")
    assert sorted(found.speakers) == ["lucas", "theo"]
    with pytest.raises(DataError, match=r"'x\+' finds no speaker's name in '7_lucas_1\.wav'"):
        data.load_recordings(tmp_path, speaker="x+")
    with pytest.raises(OptionError, match="expected a regular expression, got '\\('"):
        data.load_recordings(tmp_path, speaker="(")


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a folder with a sub-folder for each class"):
        data.load_recordings(tmp_path / "none")
    with pytest.raises(DataError, match="expected a sub-folder for each class"):
        data.load_recordings(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a: expected recordings \(\.wav.*, got none"):
        data.load_recordings(tmp_path)
    write(tmp_path / "a" / "plain.wav")
    with pytest.raises(DataError, match="it can't be told who speaks; put it into a folder"):
        data.load_recordings(tmp_path)
    with pytest.raises(DataError, match="got none called 'b'; there is a"):
        data.load_recordings(tmp_path, classes=["b"])


def test_other_rates_and_several_channels(tmp_path):
    write(tmp_path / "a" / "x_0.wav")
    write(tmp_path / "a" / "x_1.wav", 160, 16000)
    with pytest.raises(DataError, match=r"x_1\.wav: expected 8000 samples a second, got 16000"):
        data.load_recordings(tmp_path)
    found = data.load_recordings(tmp_path, convert=True)
    assert [len(w) for w in found.waveforms] == [80, 80]
    assert data.load_recordings(tmp_path, rate=16000, convert=True).rate == 16000
    write(tmp_path / "a" / "x_2.wav", channels=2)
    with pytest.raises(DataError, match=r"x_2\.wav: .*one channel, got 2; mix them .* -ac 1"):
        data.load_recordings(tmp_path, convert=True)
    write(tmp_path / "a" / "x_2.wav", 0)
    with pytest.raises(DataError, match=r"x_2\.wav: expected samples, got none; leave"):
        data.load_recordings(tmp_path, convert=True)


def test_transcribed_recordings_of_several_channels_and_other_rates(tmp_path):
    """Who gives a folder to `fastnn train asr` need not know functions of the library."""
    for name in "ab":
        write(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text("yes")
    assert len(data.load_transcribed(tmp_path).texts) == 2
    write(tmp_path / "b.wav", rate=16000)
    with pytest.raises(DataError, match=r"b\.wav: expected 8000 samples .*got 16000") as other:
        data.load_transcribed(tmp_path)
    write(tmp_path / "b.wav", channels=2)
    with pytest.raises(DataError, match=r"b\.wav: expected .*of one channel, got 2; ") as stereo:
        data.load_transcribed(tmp_path)
    for error in (other, stereo):
        assert "ffmpeg" in str(error.value)
        assert not {"axis", "shape", "fastnn.data"} & set(str(error.value).split())
        assert "resample(" not in str(error.value)


def effect_of(pairs):
    """Recordings of such labels and speakers."""
    labels, speakers = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    classes = tuple("abc"[: labels.max() + 1])
    return Recordings(
        [np.zeros(1, np.float32)] * len(pairs), labels, speakers, speakers, classes, 8
    )


def test_a_class_that_cannot_be_split_is_refused():
    with pytest.raises(DataError, match="class 'b': expected recordings of at least 2 speakers"):
        effect_of([(0, "x"), (0, "y"), (1, "y")]).split_by_speaker()
    with pytest.raises(DataError, match="class 'b': expected at least 2 recordings"):
        effect_of([(0, "x"), (0, "y"), (1, "y")]).split()
    with pytest.raises(DataError, match=r"'[abc]' has none to test with: give held_out"):
        effect_of([(k, s) for k in range(3) for s in "xyz" if s != "xyz"[k]]).split_by_speaker(0.9)
    with pytest.raises(OptionError, match="a share above 0 and below 1, got 1"):
        effect_of([(0, "x"), (0, "y")]).split(1)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """An archive like that of Speech Commands, in the place of the public one."""
    root = tmp_path / "set"
    for word in ("yes", "no"):
        for who in ("0a", "0b", "0c"):
            write(root / word / f"{who}_nohash_0.wav", 160, 16000)
    (root / "testing_list.txt").write_text("yes/0b_nohash_0.wav\nno/0b_nohash_0.wav\n")
    (root / "validation_list.txt").write_text("yes/0c_nohash_0.wav\nno/0c_nohash_0.wav\n")
    home = tmp_path / "mine" / "speech_commands"
    home.mkdir(parents=True)
    archive = home / "words.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "./")
    import hashlib

    content = archive.read_bytes()
    part = sources.File(
        "words.tar.gz", len(content), hashlib.sha256(content).hexdigest(), ("https://example.org",)
    )
    source = sources.Source("speech_commands", (part,), "none")
    monkeypatch.setattr(sources, "SPEECH_COMMANDS", source)
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("FASTNN_DATA_CACHE", str(tmp_path / "cache"))
    return root


def test_speech_commands_are_split_by_their_lists(words):
    for options in ({}, {}, {"folder": words}):  # the second time they are unpacked
        parts = data.load_speech_commands(words=("yes", "no"), **options)
        assert [set(part.speakers) for part in parts] == [{"0a"}, {"0c"}, {"0b"}]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert parts[0].classes == ("yes", "no")
    with pytest.raises(DataError, match="none called 'up'"):
        data.load_speech_commands(words=("up",))
    with pytest.raises(OptionError, match="several words, each once"):
        data.load_speech_commands(words=("yes", "yes"))


def test_an_archive_that_leads_out_of_its_folder_is_refused(words, tmp_path):
    from fastnn.data.download import DownloadError, unpack_all

    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.add(words / "testing_list.txt", "../../outside.txt")
    with pytest.raises(DownloadError, match=r"bad\.tar: not a readable tar archive"):
        unpack_all(tmp_path / "bad.tar", tmp_path / "inner" / "target")
    assert not (tmp_path / "outside.txt").exists()
    assert not (tmp_path / "inner" / "target").exists()


def test_the_public_archive_is_the_known_one():
    (part,) = sources.SPEECH_COMMANDS.parts
    assert speech_commands.RATE == 16000
    assert part.size == 2_428_923_189

"""The commands of the tasks, on small data."""

import re
import wave

import click
import numpy as np
import pytest
from click.testing import CliRunner

from fastnn import cli
from fastnn.cli.train import TASKS


def run(*arguments):
    return CliRunner().invoke(cli.group(), [str(a) for a in arguments])


@pytest.mark.parametrize("task", ["digits", *TASKS])
def test_every_task_has_help_with_the_common_options(task):
    result = run("train", task, "--help")
    assert result.exit_code == 0, result.output
    for option in ("--batch-size", "--lr", "--seed", "--workers", "--output"):
        assert option in result.stdout
    assert task in run("train", "--help").stdout


def test_numbers_that_are_not_finite_are_refused_by_every_option():
    found = 0
    for group in (cli.group(), cli.group().get_command(None, "train")):
        for name in group.list_commands(None):
            for option in group.get_command(None, name).params:
                if isinstance(option.type, type(click.FLOAT)):
                    found += 1
                    for text in ("nan", "inf"):
                        with pytest.raises(click.BadParameter):
                            option.type.convert(text, option, None)
    assert found > 20


def test_spoken_digits(tmp_path, monkeypatch):
    import fastnn.tasks.spoken_digits as task
    from fastnn.data.spoken_digits import SpokenDigits

    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=1600).astype(np.float32) * 0.1 for _ in range(20)]
    digits, indices = np.arange(20) % 10, np.arange(20) % 10
    data = SpokenDigits(waveforms, digits, np.array(["theo", "george"] * 10), indices)
    monkeypatch.setattr(task, "load_spoken_digits", lambda: data)
    result = run(
        "train", "spoken-digits", "--epochs", 1, "--hidden", 4, "--layers", 1, "--batch-size", 5,
        "--output", tmp_path / "run", "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert re.search(r"test accuracy +[\d.]+ % of 10 recordings\n", result.stdout)
    for name in ("model.safetensors", "history.csv"):
        assert (tmp_path / "run" / name).is_file()
    assert "val_accuracy" in (tmp_path / "run" / "history.csv").read_text()


def write_tones(folder, classes, speakers, rate=8000):
    """A folder of tones, a pitch for each class, three by each speaker."""
    for k, name in enumerate(classes):
        for speaker in speakers:
            for n in range(3):
                path = folder / name / f"{speaker}_{n}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(rate // 4 + 50 * n) / rate
                samples = 9000 * np.sin(2 * np.pi * (300 + 900 * k) * time)
                with wave.open(str(path), "wb") as file:
                    file.setparams((1, 2, rate, 0, "NONE", ""))
                    file.writeframes(samples.astype("<i2").tobytes())


@pytest.mark.parametrize("task", ["speech-commands", "speaker-id", "language-id"])
def test_recordings_in_a_folder_and_recognise(tmp_path, task):
    write_tones(tmp_path / "data", ["low", "high"], "abcde")
    folder = tmp_path / "run"
    small = ["--channels", 4, "--epochs", 8, "--batch-size", 6, "--lr", 0.02, "--workers", 1]
    result = run(
        "train", task, "--folder", tmp_path / "data", *small, "--output", folder, "--no-augment"
    )
    assert result.exit_code == 0, result.output
    who = " of speakers not heard before" if task != "speaker-id" else " not heard before"
    assert re.search(rf"test accuracy +100\.00 % of 6 recordings{who}\n", result.stdout)
    for name in ("model.safetensors", "model.json", "history.csv"):
        assert (folder / name).is_file()
    files = [tmp_path / "data" / name / "a_1.wav" for name in ("low", "high")]
    heard = run("recognise", folder, *files)
    assert heard.exit_code == 0, heard.output
    names = re.findall(r"a_1\.wav: (\w+) [\d.]+ %\n", heard.stdout)
    assert names == ["low", "high"]
    again = run("recognise", *files, "--checkpoint", folder / "model.safetensors")
    assert again.stdout == heard.stdout
    assert run("recognise", folder / "model.safetensors", *files).stdout == heard.stdout
    both = run("recognise", folder, files[0], "--top", 2)
    assert re.search(r": low [\d.]+ %, high [\d.]+ %\n", both.stdout)


def test_recognise_says_what_is_wrong(tmp_path):
    write_tones(tmp_path, ["low"], "a")
    lost = run("recognise", tmp_path, tmp_path / "low" / "a_0.wav")
    assert lost.exit_code == 1
    assert "as `fastnn train speech-commands` writes it" in lost.stderr
    (tmp_path / "model.json").write_text('{"options": {}}')
    other = run("recognise", tmp_path, tmp_path / "low" / "a_0.wav")
    assert "(it has no 'seconds', so it may be of another task)" in other.stderr
    default = run("recognise", tmp_path / "low" / "a_0.wav")
    assert "runs/speech-commands: no such file or folder" in default.stderr
    lost = run("recognise", tmp_path / "lost", tmp_path / "low" / "a_0.wav")
    assert f"{tmp_path / 'lost'}: no such file or folder" in lost.stderr
    without = run("recognise", tmp_path)
    assert without.exit_code == 2
    assert "expected audio files after the checkpoint" in without.stderr
    alone = run("train", "language-id", "--folder", tmp_path, "--output", tmp_path / "run")
    assert alone.exit_code == 1
    assert "class 'low': expected recordings of at least 2 speakers" in alone.stderr
    none = run("train", "language-id")
    assert none.exit_code == 2
    assert "--folder" in none.stderr


def test_char_lm_and_sample(tmp_path):
    (tmp_path / "input.txt").write_text("to be or not to be\n" * 60)
    small = ["--epochs", 2, "--hidden", 12, "--layers", 1, "--batch-size", 4, "--steps", 8]
    small += ["--folder", tmp_path]
    options = [*small, "--embedding", 4, "--workers", 1, "--output", tmp_path / "run"]
    result = run("train", "char-lm", *options, "--dynamic", 0.3, "--ngram", 6)
    assert result.exit_code == 0, result.output
    alone = re.search(r"validation +([\d.]+) bits per character of 114\n", result.stdout)
    learned = re.search(r"dynamic +([\d.]+), learning while it reads\n", result.stdout)
    assert alone is not None
    assert learned is not None
    assert float(learned[1]) < float(alone[1])
    mixed = re.search(r"mixed +([\d.]+), with 6-grams of the training text\n", result.stdout)
    assert mixed is not None
    assert float(mixed[1]) < float(alone[1])
    refused = run("train", "char-lm", "--transformer", "--dynamic", 0.3)
    assert "--dynamic: expected with an LSTM only" in refused.output
    refused = run("train", "word-lm", "--transformer", "--embedding", 3)
    assert "--embedding: expected with an LSTM only; the Transformer's vec" in refused.output
    assert "--heads: expected with --trans" in run("train", "char-lm", "--heads", 2).output
    again = run("train", "char-lm", *options, "--resume", tmp_path / "run/model.safetensors")
    assert again.exit_code == 0, again.output
    written = run("sample", tmp_path / "run", "--prime", "to be", "--length", 20)
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith("to be")
    assert len(written.stdout) == 5 + 20 + 1
    for same in ([tmp_path / "run/model.safetensors"], ["--checkpoint", tmp_path / "run"]):
        assert run("sample", *same, "--prime", "to be", "--length", 20).stdout == written.stdout
    two = run("sample", tmp_path, "--checkpoint", tmp_path)
    assert "expected one checkpoint" in two.stderr
    short = ("--prime", "to be", "--length", 3, "--precision")
    assert run("sample", tmp_path / "run", *short, "bf16").exit_code == 0
    unknown = run("sample", tmp_path / "run", "--prime", "zebra")
    assert unknown.exit_code == 1
    assert "'z' is not in the vocabulary" in unknown.stderr


def test_sample_without_a_model(tmp_path):
    result = run("sample", tmp_path)
    assert result.exit_code == 1
    assert "no such file" in result.stderr


def test_word_lm(tmp_path):
    for part in ("train", "valid", "test"):
        lines = " the cat sees the <unk> dog \n" * 40
        (tmp_path / f"ptb.{part}.txt").write_text(lines)
    result = run(
        "train", "word-lm", "--folder", tmp_path, "--epochs", 1, "--hidden", 8, "--embedding", 4,
        "--batch-size", 4, "--steps", 5, "--workers", 1, "--output", tmp_path / "run", "--cache",
        50, "--ngram", 3, "--tied", "--sampled", 2, "--augmented", 0.02, "--full-softmax", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = [
        float(one[1])
        for what in ("of 280 words", "with a cache of 50 words", "with 3-grams",
                     "with a cache of 50 words and with 3-grams")
        if (one := re.search(rf"validation.* perplexity ([\d.]+),? {what}\n", result.stdout))
    ]  # fmt: skip
    assert len(found) == 4, result.stdout
    assert (tmp_path / "run/surprise.png").stat().st_size > 1000
    # a text that repeats itself: what has counted it knows it best
    assert found[2] < found[0]
    written = run("sample", tmp_path / "run", "--prime", "the", "--length", 5)
    assert written.stdout.split()[0] == "the"
    (tmp_path / "ptb.valid.txt").write_text("")
    short = run("train", "word-lm", "--folder", tmp_path, "--steps", 5, "--output", tmp_path / "no")
    assert "the validation text: expected more than 100 symbols, 20 streams of 5" in short.stderr


def test_ner(tmp_path):
    sentence = "Ada NNP B-NP B-PER\nsings VBZ B-VP O\n\nin IN B-PP O\nRome NNP B-NP B-LOC\n\n"
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(sentence * 10)
    result = run(
        "train", "ner", "--folder", tmp_path, "--epochs", 2, "--hidden", 8, "--embedding", 4,
        "--batch-size", 4, "--workers", 1, "--output", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("transitions", "types"):
        assert (tmp_path / "run" / f"{name}.png").stat().st_size > 1000
    assert re.search(r"validation F1 +[\d.]+ % of 20 entities\ntest F1", result.stdout)
    assert "PER" in result.stdout.splitlines()[-1]


def test_adding(tmp_path):
    small = ["--updates", 20, "--every", 10, "--hidden", 4, "--workers", 1]
    result = run("train", "adding", "--net", "lstm", "--steps", 4, *small, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "T=4    lstm  not solved after 20 updates" in result.stdout
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "net,steps,updates,error"
    assert lines[2].startswith("lstm,4,20,0.")


def test_copy_recall_and_sort(tmp_path):
    small = ["--slots", 12, "--width", 3, "--hidden", 4, "--longest", 2, "--batches", 2]
    small += ["--epochs", 1, "--batch-size", 2, "--workers", 1, "--output", tmp_path]
    for task, more in (("sort", ["--no-lstm"]), ("copy", []), ("recall", ["--no-lstm"])):
        result = run("train", task, *small, *more)
        assert result.exit_code == 0, result.output
        lines = (tmp_path / "bits.csv").read_text().splitlines()
        assert lines[0] == ("size,ntm" if more else "size,ntm,lstm")
        sizes = [2, 4] if task == "recall" else [1, 2, 4]
        assert [int(line.split(",")[0]) for line in lines[1:]] == sizes
        both = [(tmp_path / f"lstm.{end}").exists() for end in ("safetensors", "json")]
        assert both == [not more] * 2  # those of an earlier run are removed
        if not more:
            (tmp_path / "bits.txt").write_text("10000000 01000000\n")
            lstm = tmp_path / "lstm.safetensors"
            used = run("remember", tmp_path / "bits.txt", "--checkpoint", lstm)
            assert used.exit_code == 0, used.output
            assert len(used.stdout.split()) == 2
        assert re.search(r"size 4 +[\d.]+", result.stdout)
        names = {p.name for p in tmp_path.iterdir()}
        assert {"model.safetensors", "model.json", "history.csv", "weightings.png"} <= names
        assert "val_bits" in (tmp_path / "history.csv").read_text()
    from fastnn.tasks.memory import load_memory

    assert load_memory(tmp_path).task == "recall"
    again = run("train", "recall", *small, "--no-lstm", "--resume", tmp_path / "model.safetensors")
    assert again.exit_code == 0, again.output


def test_translate(tmp_path):
    """The command that trains writes what the one that translates needs."""
    from tests.tasks.test_translate import sentences

    for part, count in (("train", 64), ("valid", 8), ("test", 8)):
        for language, lines in zip(("en", "xx"), sentences(count, count), strict=True):
            (tmp_path / f"{part}.{language}").write_text("\n".join(lines))
    folder = tmp_path / "run"
    done = run(
        "train", "translate", "--folder", tmp_path, "--target", "xx", "--size", "8", "--merges",
        "20", "--epochs", "1", "--batch-size", "16", "--output", str(folder), "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "test BLEU" in done.output
    names = {p.name for p in folder.iterdir()}
    assert {"model.safetensors", "model.json", "history.csv", "alignment.png"} <= names
    picture = tmp_path / "looked.png"
    done = run("translate", "one two", "three", "--checkpoint", str(folder), "--alignment", picture)
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 2
    assert picture.stat().st_size > 1000
    none = run("translate", "", "--checkpoint", folder, "--alignment", picture)
    assert (none.exit_code, none.stdout) == (1, "")
    done = run("translate", "one", "--checkpoint", str(folder), "--width", "100000")
    assert "'--width': 100000 is not in the range 1<=x<=1000" in done.output + done.stderr
    done = run("translate", "one", "--checkpoint", str(tmp_path / "none"))
    assert done.exit_code == 1
    assert "expected the checkpoint of a translator" in done.output + done.stderr

"""Ctrl-C before, in and after a task's training: nothing is lost, and nothing is made of half a
run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastnn.train.progress
from fastnn import pretrain
from fastnn.tasks import adding, digit_judge, dynamic, images, language
from fastnn.train.trainer import Trainer
from tests.cli.test_tasks import run


def interrupt(*_args, **_options):
    raise KeyboardInterrupt


def assert_same(first, second):
    first, second = load_file(first), load_file(second)
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.fixture
def char_lm(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "input.txt").write_text("to be or not to be\n" * 60)
    small = ["--epochs", 2, "--hidden", 12, "--layers", 1, "--batch-size", 4, "--steps", 8]
    small += ["--folder", folder, "--embedding", 4, "--workers", 1]
    return ["train", "char-lm", *small, "--output"]


def test_in_training_it_ends_a_command_without_measurements(tmp_path, char_lm, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(fastnn.train.progress.ProgressBar, "on_epoch_end", interrupt)
        patched.setattr("fastnn.tasks.char_lm.mean_loss", None)
        result = run(*char_lm, tmp_path / "run")
    assert result.exit_code == 130, result.output
    checkpoint = tmp_path / "run" / "model.safetensors"
    assert result.stdout.endswith(f"resume with the same options and --resume {checkpoint}\n")
    assert "nan" not in result.stdout
    assert (tmp_path / "run" / "model.json").is_file()
    resumed = run(*char_lm, tmp_path / "run", "--resume", checkpoint)
    whole = run(*char_lm, tmp_path / "whole")
    assert resumed.exit_code == whole.exit_code == 0
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    assert_same(checkpoint, tmp_path / "whole" / "model.safetensors")


def test_after_training_what_was_trained_is_kept(tmp_path, char_lm, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("fastnn.tasks.char_lm.mean_loss", interrupt)
        result = run(*char_lm, tmp_path)
    assert result.exit_code == 130, result.output
    checkpoint = tmp_path / "model.safetensors"
    assert "interrupted after training" in result.stderr
    assert f"--resume {checkpoint}" in result.stderr
    before = load_file(checkpoint)
    resumed = run(*char_lm, tmp_path, "--resume", checkpoint)
    assert resumed.exit_code == 0, resumed.output
    assert "bits per character" in resumed.stdout
    for name, value in load_file(checkpoint).items():
        np.testing.assert_array_equal(value, before[name])


def test_the_lstm_beside_the_memory_machine_goes_on_too(tmp_path, monkeypatch):
    small = ["--slots", 12, "--width", 3, "--hidden", 4, "--longest", 2, "--batches", 2]
    small += ["--epochs", 2, "--batch-size", 2, "--workers", 1, "--output"]
    calls = []

    def third(self, epoch, logs):
        calls.append(epoch)
        if len(calls) == 3:  # the machine is trained, and the LSTM for an epoch
            raise KeyboardInterrupt

    (tmp_path / "lstm.safetensors").write_text("of another run")
    monkeypatch.setattr(fastnn.train.progress.ProgressBar, "on_epoch_end", third)
    result = run("train", "copy", *small, tmp_path)
    assert result.exit_code == 130, result.output
    checkpoint = tmp_path / "model.safetensors"
    assert f"--resume {checkpoint}" in result.stdout
    calls[:] = [None] * 3
    resumed = run("train", "copy", *small, tmp_path, "--resume", tmp_path)  # its folder
    assert resumed.exit_code == 0, resumed.output
    assert calls[3:] == [0, 1]  # of the LSTM: the hook that was cut off, and the second epoch
    whole = run("train", "copy", *small, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert_same(tmp_path / "lstm.safetensors", tmp_path / "whole" / "lstm.safetensors")
    table = [(folder / "bits.csv").read_text() for folder in (tmp_path, tmp_path / "whole")]
    assert table[0] == table[1]


def test_adding_writes_the_nets_that_are_done_and_ends(tmp_path, monkeypatch):
    calls = []

    def second(self, epoch, logs):
        calls.append(epoch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(adding._Solved, "on_epoch_end", second)
    small = ["--updates", 10, "--every", 10, "--hidden", 4, "--workers", 1, "--output", tmp_path]
    result = run("train", "adding", "--net", "gru", "--net", "lstm", "--steps", 4, *small)
    assert result.exit_code == 130, result.output
    assert len(calls) == 2
    assert "interrupted at T=4 lstm" in result.stdout
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["net", "gru"]


def judge():
    x = np.zeros((128, 64), np.float32)
    digit_judge.train_judge(
        images.Images(x, np.zeros(128, int), x, np.zeros(128, int), (8, 8)), workers=1
    )


def learning():
    model = language.LanguageModel(5, embedding=4, hidden=4, layers=1, streams=2)
    dynamic.dynamic_loss(model, np.arange(40) % 5, lr=0.1, steps=4, workers=1)


@pytest.mark.parametrize("work", [judge, learning])
def test_half_a_run_is_not_made_use_of(work, monkeypatch):
    whole = Trainer.fit

    def fit(self, *data, callbacks=(), **options):
        stop = fastnn.train.hooks.LambdaCallback(on_epoch_end=interrupt)
        return whole(self, *data, callbacks=[*callbacks, stop], **options)

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        work()


def test_layers_above_one_that_was_interrupted_are_not_pretrained(monkeypatch):
    net = pretrain.StackedDenoisingAutoencoder([6, 4, 3])
    stop = fastnn.train.hooks.LambdaCallback(on_epoch_end=interrupt)
    found = net.fit(np.zeros((20, 6), np.float32), epochs=2, callbacks=[stop], verbose=False)
    assert [history.stopped for history in found] == ["interrupted"]

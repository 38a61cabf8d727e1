"""Wrong options of a training: one line that says what is wrong, and an exit code."""

import pytest

from fastnn.cli.train import by_batches, digits_trainer
from tests.cli.test_cli import run


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--optimizer", "sdg"], 1, "--optimizer: expected one of adadelta, adafactor"),
        (["--optimizer", "lbfgs"], 1, "--optimizer: expected one of adadelta, adafactor"),
        (["--device", "tpu"], 1, "device: expected 'auto', 'cpu', 'cuda' or 'cuda:1', got 'tpu'"),
        (["--batch-size", "0"], 2, "Invalid value for '--batch-size'"),
        (["--batch-size", "1.5"], 2, "'--batch-size': expected a whole number, got '1.5'"),
        (["--lr", "fast"], 2, "'--lr': expected a number, got 'fast'"),
        (["--resume", "nowhere.safetensors"], 1, "no such file"),
        (["--resume", "."], 1, "checkpoint 'model.safetensors': there is no"),
        (["--resume", "--output", "runs"], 2, "'--resume' requires a value, got the option '--ou"),
        (["--output", "--quiet"], 2, "'--output' requires a value, got the option '--quiet'"),
        (["--hidden", "64,x"], 2, "expected sizes such as 256,128, got '64,x'"),
        (["--hidden", "0"], 2, "expected sizes"),
        (["--workers", "none"], 2, "expected 'auto' or a number"),
        (["--epochs", "0"], 2, "Invalid value for '--epochs'"),
        (["--lr", "-1"], 2, "Invalid value for '--lr'"),
        (["--dropout", "1"], 2, "Invalid value for '--dropout'"),
        (["--speed", "9"], 2, "No such option"),
    ],
)
def test_mistakes_are_one_line(tmp_path, options, code, message):
    result = run("train", "digits", "--output", tmp_path / "run", *options)
    assert result.exit_code == code
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", by_batches())
def test_each_optimizer_that_is_listed_can_be_made(name):
    trainer = digits_trainer(steps=10, hidden=(4,), optimizer=name, lr=0.01)
    assert "lr=0.01" in repr(trainer.optimizer)

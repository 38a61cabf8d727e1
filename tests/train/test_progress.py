"""The progress bar."""

import io

from fastnn.train.callbacks import (
    ProgressBar,
)
from tests.train.callbacks import FakeTrainer


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal():
    stream = Terminal()
    FakeTrainer(ProgressBar(stream)).fit("loss", [0.5, 0.25])
    text = stream.getvalue()
    assert "epoch 1/9" in text
    assert "epoch 2/9" in text
    assert "2/4" in text
    assert "samples/s, loss 0.5" in text
    last = text.rstrip().splitlines()[-1].split("\r")[-1]
    assert "4/4" in last
    assert "loss 0.25" in last


def test_progress_closes_an_interrupted_bar():
    stream = Terminal()
    bar = ProgressBar(stream)
    trainer = FakeTrainer(bar)
    bar.on_epoch_begin(0, {})
    bar.update(1, {"loss": 2.0})
    trainer.callbacks.on_train_end({})
    length = len(stream.getvalue())
    bar.update(2, {"loss": 1.0})
    assert len(stream.getvalue()) == length
    assert stream.getvalue().endswith("\n")


def test_progress_elsewhere_is_a_line_an_epoch(monkeypatch):
    control = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(control))
    stream = io.StringIO()
    FakeTrainer(ProgressBar(stream)).fit("loss", [0.5, 0.25])
    assert stream.getvalue().splitlines() == [
        "epoch 1/9, 30 samples/s, loss 0.5",
        "epoch 2/9, 30 samples/s, loss 0.25",
    ]

"""A live progress bar, or one line per epoch if the output is not a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from fastnn.train.hooks import Callback, Logs

_BAR = "{desc} {bar:20} {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"


class ProgressBar(Callback):
    """Shows epoch, step, samples per second, running loss and metrics.

    On a terminal it is a bar (tqdm) for each epoch, redrawn at every `update`; elsewhere (a log
    file, a pipe) one line at the end of each epoch. `stream` is standard error by default, to keep
    it apart from a program's results.

    >>> import fastnn as fnn
    >>> callbacks = [fnn.callbacks.ProgressBar()]  # for Trainer.fit(..., verbose=False)
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._bar: Any = None
        self._begin = 0.0
        self._seconds: float | None = None  # what the epoch's training took, validation left out

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self._begin, self._seconds = time.perf_counter(), None
        stream = self.stream or sys.stderr
        if stream is not None and stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.params.get("steps"),
                desc=self._title(epoch),
                file=stream,
                bar_format=_BAR,
                dynamic_ncols=True,
            )

    def update(self, step: int, logs: Logs) -> None:
        if self._bar is not None:
            self._draw(step, logs)

    def on_test_begin(self, logs: Logs) -> None:
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._begin

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        steps = self.params.get("steps") or 0
        if self._bar is not None:
            self._draw(steps or self._bar.n, logs)
            self._bar.close()
            self._bar = None
        elif (stream := self.stream or sys.stderr) is not None:  # there is none under pythonw
            stream.write(f"{self._title(epoch)}, {self._values(steps, logs)}\n")
            stream.flush()

    def on_train_end(self, logs: Logs) -> None:
        if self._bar is not None:  # the last epoch was interrupted
            self._bar.close()
            self._bar = None

    def _draw(self, step: int, logs: Logs) -> None:
        self._bar.n = step
        self._bar.set_postfix_str(self._values(step, logs), refresh=False)
        self._bar.refresh()

    def _title(self, epoch: int) -> str:
        epochs = self.params.get("epochs")
        return f"epoch {epoch + 1}/{epochs}" if epochs else f"epoch {epoch + 1}"

    def _values(self, step: int, logs: Logs) -> str:
        values = [f"{name} {value:.4g}" for name, value in logs.items()]
        samples = step * self.params.get("batch_size", 0)
        samples = min(samples, self.params.get("samples") or samples)
        seconds = self._seconds or time.perf_counter() - self._begin
        if samples and seconds:
            values.insert(0, f"{samples / seconds:,.0f} samples/s")
        return ", ".join(values)

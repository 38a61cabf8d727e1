"""Runs that are killed at random moments and resumed: they end in the bits of a run that is not.

    python -m tests.fuzz.kills --count 200

A chain is one training run. Its process is killed (SIGKILL) or interrupted (Ctrl-C, after which it
saves), and another goes on from the last checkpoint, until the run is through. Then nothing but the
checkpoint may lie in the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import nn, optim
from fastnn.train.callbacks import (
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    ResetStates,
)
from fastnn.train.trainer import Trainer
from tests.fuzz.common import Watcher, main

SAMPLES, BATCH, EPOCHS, EVERY = 96, 8, 30, 5


class Net(nn.Module):
    def __init__(self) -> None:
        self.rnn = nn.GRU(5, 12, stateful=BATCH)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.drop(self.rnn(x)[1][-1]))


def train(path: Path, finished: Path, ready: int) -> None:
    """Go on with the run; at its end write a digest of all that it has become.

    Says through the pipe `ready` when the run begins.
    """
    chance = np.random.default_rng(0)
    x = chance.normal(size=(SAMPLES, 4, 5)).astype(np.float32)
    y = chance.integers(0, 3, SAMPLES)
    trainer = Trainer(Net(), "cross_entropy", optim.Adam(lr=0.01), ["accuracy"], workers=1)
    kept = [
        EarlyStopping("loss", patience=99), ResetStates(),
        ReduceLROnPlateau("loss", factor=0.9, patience=2, min_delta=0.01),
    ]  # fmt: skip
    saver = ModelCheckpoint(path, save_freq=EVERY)
    begun = LambdaCallback(on_train_begin=lambda logs: os.write(ready, b"!"))
    history = trainer.fit(
        x, y, epochs=EPOCHS, batch_size=BATCH, verbose=False, callbacks=[*kept, saver, begun],
        resume=path if path.exists() else None,
    )  # fmt: skip
    last = finished.with_name("last")
    if history.epoch:  # a checkpoint may be that of the end: nothing is left to do then
        last.write_text(repr([history[name][-1] for name in ("loss", "accuracy")]))
    if history.stopped == "interrupted":
        trainer.save(path)
        return
    digest = hashlib.sha256()
    arrays = trainer.model.state_dict()
    for slot in trainer.optimizer.slots:
        arrays[slot] = trainer.session.memory[f"slots/{slot}"]
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    digest.update(f"{trainer.step} {trainer.place} {trainer.learning_rate!r}".encode())
    for callback in (kept[0], kept[2]):
        state = {k: v for k, v in callback.state_dict().items() if k != "best_parameters"}
        digest.update(repr(sorted(state.items())).encode())
    digest.update(last.read_bytes())
    trainer.save(path)
    finished.write_text(digest.hexdigest())


def child(path: Path, finished: Path) -> tuple[int, int]:
    """A forked process that trains; its number, and a pipe that says when the run begins."""
    ready, says = os.pipe()
    number = os.fork()
    if number:
        os.close(says)
        return number, ready
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        train(path, finished, says)
        code = 0
    except KeyboardInterrupt:  # before or after the run
        code = 3
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
    os._exit(code)


def run(count: int, seed: int, folder: Path) -> Watcher:
    """So many kills."""
    chance, watcher = random.Random(seed), Watcher("kills")
    path, finished = folder / "run" / "checkpoint", folder / "finished"
    path.parent.mkdir()
    for _ in range(2):  # the first may have to compile; the second says how long a run takes
        path.unlink(missing_ok=True)
        number, ready = child(path, finished)
        os.read(ready, 1)
        begin = time.monotonic()
        _, status = os.waitpid(number, 0)
        os.close(ready)
        assert status == 0, "the run that is not killed"
    expected, length = finished.read_text(), time.monotonic() - begin
    chains = 0
    while watcher.done < count:
        for old in (path, finished, finished.with_name("last")):
            old.unlink(missing_ok=True)
        while not finished.exists():
            number, ready = child(path, finished)
            if chance.random() < 0.9:
                os.read(ready, 1)
            time.sleep(chance.uniform(0, length / 4))
            how = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT))
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, how)
            _, status = os.waitpid(number, 0)
            os.close(ready)
            watcher.done += not finished.exists()  # it was killed or interrupted in time
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in (0, 3):
                watcher.faults.append(f"{watcher.done}: exit code {os.WEXITSTATUS(status)}")
                return watcher
        chains += 1
        left = [name for name in os.listdir(path.parent) if name != path.name]
        if finished.exists() and finished.read_text() != expected:
            watcher.faults.append(f"{watcher.done}: other bits than without kills")
        if finished.exists() and left:
            watcher.faults.append(f"{watcher.done}: left behind: {left}")
    watcher.name = f"kills ({chains} runs)"
    return watcher


if __name__ == "__main__":
    main({"kills": run}, 200)

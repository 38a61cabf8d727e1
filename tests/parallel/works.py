"""What the processes of the tests do: functions that they can import."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.callbacks import LambdaCallback
from fastnn.parallel import Group

RNG = np.random.default_rng(2)
X = RNG.normal(size=(26, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 26)


def trainer(on_gradients: Any = None, seed: int = 3) -> fnn.Trainer:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return fnn.Trainer(
        model, "cross_entropy", optim.Adam(lr=0.02), workers=1, seed=seed,
        on_gradients=on_gradients, device="cpu",
    )  # fmt: skip


def train(group: Group) -> tuple[slice, dict[str, bytes], list[float]]:
    """This process's samples, its parameters after two epochs, and its losses."""
    made, mine = trainer(group.average), group.share(24)
    history = made.fit(
        X[mine], Y[mine], epochs=2, batch_size=12 // group.size, shuffle=False, verbose=False
    ).history
    found = {name: a.tobytes() for name, a in made.get_parameters().items()}
    return mine, found, list(history["loss"])


def fails(group: Group) -> None:
    if group.rank == 1:
        raise ValueError("no data here")
    train(group)


def dies(group: Group) -> None:
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    train(group)


def has_fewer_steps(group: Group) -> None:
    count = 24 if group.rank else 12
    trainer(group.average).fit(X[:count], Y[:count], epochs=1, batch_size=12, verbose=False)


def has_another_model(group: Group) -> None:
    group.average({"w": np.zeros(3 + group.rank, np.float32)})


def dies_waiting(group: Group) -> None:
    """Process 1 is killed while it waits for process 0, which comes to no exchange itself."""
    if group.rank == 1:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        group.average({"w": np.zeros(3, np.float32)})
    time.sleep(1000)


def dies_before_its_child(group: Group) -> None:
    """Process 1 is killed, and a process that it has started holds its ends open."""
    if group.rank == 1:
        if os.fork() == 0:
            time.sleep(15)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    group.average({"w": np.zeros(3, np.float32)})


def hears_nothing(group: Group) -> None:
    """Process 1 fails, and process 0 ends neither by itself nor when it is asked to."""
    if group.rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        group.average({"w": np.zeros(3, np.float32)})
        time.sleep(1000)
    group.average({"w": np.zeros(3, np.float32)})
    raise ValueError("no data here")


def loses_its_parent(group: Group) -> None:
    """The process that has called `run` is killed; what the others are told goes to a file."""
    folder = Path(os.environ["FASTNN_TEST_FOLDER"])
    try:
        group.average({"w": np.zeros(3, np.float32)})
        if group.rank == 0:
            os.kill(os.getppid(), signal.SIGKILL)
        while True:
            group.average({"w": np.zeros(3, np.float32)})
    except Exception as error:
        (folder / "part").with_suffix(f".{group.rank}").write_text(f"{error}")
        (folder / "part").with_suffix(f".{group.rank}").rename(folder / f"done{group.rank}")
        raise


def has_another_seed(group: Group) -> None:
    made = trainer(group.average, seed=3 + group.rank)
    made.fit(X[:24], Y[:24], epochs=1, batch_size=12, verbose=False)


def changes_its_rate_alone(group: Group) -> None:
    made = trainer(group.average)
    slower = LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(made, "learning_rate", 0.01 * (1 + group.rank))
    )
    made.fit(X[:24], Y[:24], epochs=2, batch_size=12, verbose=False, callbacks=[slower])


def resumes(group: Group) -> dict[str, bytes]:
    """Two epochs; one, and another after a checkpoint that each process has of its own."""
    folder = Path(os.environ["FASTNN_TEST_FOLDER"])
    mine = group.share(24)
    options: Any = {"batch_size": 5, "verbose": False}
    whole = trainer(group.average)
    whole.fit(X[mine], Y[mine], epochs=2, **options)
    first = trainer(group.average)
    first.fit(X[mine], Y[mine], epochs=1, **options)
    first.save(folder / f"checkpoint{group.rank}")
    second = trainer(group.average)
    second.fit(X[mine], Y[mine], epochs=2, resume=folder / f"checkpoint{group.rank}", **options)
    found = {name: a.tobytes() for name, a in second.get_parameters().items()}
    assert found == {name: a.tobytes() for name, a in whole.get_parameters().items()}
    return found


def resumes_alone(group: Group) -> None:
    """Process 0 goes on from a checkpoint, process 1 from the beginning."""
    folder = Path(os.environ["FASTNN_TEST_FOLDER"])
    alone = trainer()
    alone.fit(X[:24], Y[:24], epochs=1, batch_size=12, verbose=False)
    alone.save(folder / f"alone{group.rank}")
    resume = folder / "alone0" if group.rank == 0 else None
    made = trainer(group.average)
    made.fit(X[:24], Y[:24], epochs=2, batch_size=12, verbose=False, resume=resume)


def interrupted(group: Group) -> bool:
    """Ctrl-C comes to process 1 in the middle of a training."""
    made = trainer(group.average)

    def interrupt(epoch: int, logs: Any) -> None:
        if group.rank == 1 and epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    made.fit(
        X[:24], Y[:24], epochs=10**6, batch_size=12, verbose=False,
        callbacks=[LambdaCallback(on_epoch_end=interrupt)],
    )  # fmt: skip
    return bool(made.interrupted)

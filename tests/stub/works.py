"""What the processes of the tests on several devices do: functions that they can import.

The stand-in runs no kernel: gradients stay as the memory was, so the tests write into it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.kernels import control_block
from fastnn.parallel import Group

RNG = np.random.default_rng(2)
X = RNG.normal(size=(48, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 48)


def trainer(group: Group, dtype: str = "float32", **options: Any) -> fnn.Trainer:
    norm = options.pop("norm", False)
    layers = [nn.Linear(5, 7), *([nn.BatchNorm(7)] if norm else []), nn.Tanh(), nn.Linear(7, 3)]
    options = {"device": group.device, **options}
    return fnn.Trainer(
        nn.Sequential(*layers), "cross_entropy", optim.Adam(lr=0.02), seed=3, dtype=dtype,
        on_gradients=group.average, **options,
    )  # fmt: skip


def memory(made: fnn.Trainer, name: str) -> np.ndarray:
    """A segment's bytes as the stand-in keeps them: they are the host's."""
    runtime: Any = made.session.runtime
    piece = runtime.memory.segments[name].place(runtime.gpu)
    raw: Any = (ctypes.c_uint8 * piece.size).from_address(piece.address)
    return np.frombuffer(raw, np.uint8)


def averages(group: Group, dtype: str = "float32") -> tuple[str, list[list[float]]]:
    """Gradients that differ by process, before and after each step."""
    made = trainer(group, dtype)
    options: Any = {"batch_size": 8, "shuffle": False, "verbose": False}
    made.fit(X[:8], Y[:8], epochs=1, **options)
    found = []
    for turn in range(3):
        grads = memory(made, "grads").view(dtype)
        grads[:] = (group.rank + 1) * (turn + 1) * np.arange(len(grads))
        made.fit(X[:8], Y[:8], epochs=1, **options)
        gradients = {n: p.grad for n, p in made.model.named_parameters().items()}
        found.append([float(v) for g in gradients.values() for v in np.asarray(g).ravel()])
    return made.device, found


def averages_wide(group: Group) -> tuple[str, list[list[float]]]:
    return averages(group, "float64")


def trains(group: Group) -> str:
    """All ways of feeding: arrays, an iterable, a last batch that is smaller, one by one."""
    made = trainer(group, norm=True)
    mine = group.share(44)
    made.fit(X[mine], Y[mine], epochs=3, batch_size=8, verbose=False)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k in range(6):
            yield X[k : k + 8], Y[k : k + 8]

    made.fit(batches(), epochs=1, verbose=False)
    plain = trainer(group, graphs=False)  # and without batch norm
    plain.fit(X[mine], Y[mine], epochs=1, batch_size=8, verbose=False)
    return made.device


def takes_the_same_device(group: Group) -> None:
    trainer(group, device="cuda:0")


def has_another_model(group: Group) -> None:
    layer = nn.Linear(5, 3 + group.rank)
    made = fnn.Trainer(
        layer, "mse", optim.SGD(lr=0.1), on_gradients=group.average, device=group.device
    )
    made.fit(X, np.zeros((48, 3 + group.rank), np.float32), batch_size=8, verbose=False)


def has_fewer_steps(group: Group) -> None:
    count = 48 if group.rank else 24
    trainer(group).fit(X[:count], Y[:count], epochs=1, batch_size=8, verbose=False)


def _steps(group: Group, at: int, act: Any) -> None:
    made = trainer(group)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k in range(40):
            if k == at and group.rank == 1:
                act(made)
            yield X[:8], Y[:8]

    made.fit(batches(), epochs=1, verbose=False)


def is_killed(group: Group) -> None:
    _steps(group, 20, lambda made: os.kill(os.getpid(), signal.SIGKILL))


def fails(group: Group) -> None:
    def act(made: Any) -> None:
        raise ValueError("no data here")

    _steps(group, 20, act)


def ends_early(group: Group) -> None:
    """Process 1 has fewer batches than process 0."""
    made = trainer(group)
    batches = [(X[:8], Y[:8])] * (20 - 3 * group.rank)
    made.fit(batches, epochs=1, verbose=False)


def loses_its_parent(group: Group) -> None:
    made = trainer(group)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield X[:8], Y[:8]
            time.sleep(0.01)
            if group.rank == 1:
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(1000)

    made.fit(batches(), epochs=1, verbose=False)


def stops(group: Group) -> None:
    """The loss of process 1 is not finite, as a kernel would say in the control block."""
    made = trainer(group)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k in range(40):
            if k == 20 and group.rank == 1:
                runtime: Any = made.session.runtime
                at = runtime.device_control.piece.address + 8 * control_block.STOP
                ctypes.c_int64.from_address(at).value = control_block.NOT_FINITE
                (bound,) = runtime._acquired
                loss = bound.place(bound.program.places["loss"]).address
                ctypes.c_float.from_address(loss).value = float("nan")
            yield X[:8], Y[:8]

    try:
        made.fit(batches(), epochs=1, verbose=False)
    except fnn.errors.FastnnError as error:
        raise type(error)(f"rank {group.rank}: {error}") from None

"""How tasks train: with Adam, and with measurements of their own after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnn import nn, optim
from fastnn.train.history import History
from fastnn.train.hooks import Callback, LambdaCallback, Logs
from fastnn.train.trainer import Trainer


def train(
    model: nn.Module, loss: Any, *data: Any, schedule: Any, lr: float, clip: float | None = 5.0,
    metrics: Sequence[Any] = (), measure: Callable[[Logs], Mapping[str, float]] | None = None,
    callbacks: Sequence[Callback] = (), seed: int = 0, device: str = "auto",
    workers: int | str = "auto", precision: str = "highest", **fitting: Any,
) -> tuple[Trainer, History]:  # fmt: skip
    """Train a task's model.

    Args:
        model, loss, metrics, seed, device, workers, precision: as of `Trainer`.
        data: batches, or inputs and targets, as of `Trainer.fit`.
        schedule, lr: of Adam's learning rate.
        clip: limit of the norm of all gradients together; None is none.
        measure: what an epoch's figures give, or the model at its end: figures that join them, and
            go into the history.
        callbacks: they see what was measured.
        fitting: other options of `Trainer.fit`.

    Returns the trainer and the history.
    """
    adam = optim.Adam(lr=lr, clip_global_norm=clip, schedule=schedule)
    trainer = Trainer(
        model, loss, adam, list(metrics), device=device, workers=workers, seed=seed,
        precision=precision,
    )  # fmt: skip

    def add(epoch: int, logs: Logs) -> None:
        if measure is not None:
            logs.update(measure(logs))

    history = trainer.fit(
        *data, callbacks=[LambdaCallback(on_epoch_end=add), *callbacks], **fitting
    )
    return trainer, history


def whole(history: History) -> None:
    """Raise KeyboardInterrupt where Ctrl-C has ended a run: for those that come before something
    else, which must not go on with half of it."""
    if interrupted(history):
        raise KeyboardInterrupt


def interrupted(history: History) -> bool:
    """Whether Ctrl-C has ended a run: then its user waits for no long measurements."""
    return history.stopped == "interrupted"

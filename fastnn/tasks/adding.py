"""The adding problem: what a recurrent net can remember over many steps.

Each step brings a random number in [0, 1] and a mark; two steps are marked, one in each half of the
sequence, and the answer after the last step is the sum of their numbers. Always answering 1 gives a
mean squared error of 1/6; a net that does better has carried numbers over many steps. Hochreiter
and Schmidhuber, "Long short-term memory", Neural Computation 9 (8), 1997, 5.4; the IRNN is from Le,
Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn, optim
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.tasks import training
from fastnn.train.hooks import Callback, Logs
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

#: mean squared error of the answer 1
GUESS = 1 / 6
#: error below which the problem counts as solved
SOLVED = 0.01
NETS = ("rnn", "irnn", "lstm", "gru")
#: learning rates; that of the IRNN has to be small
RATES = {"rnn": 1e-3, "irnn": 5e-4, "lstm": 1e-2, "gru": 5e-3}


def adding_problem(samples: int, steps: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Sequences with two marked numbers, and their sums.

    Returns numbers and marks, float32, shape (samples, steps, 2), and sums, shape (samples, 1).

    >>> x, y = adding_problem(5, 20, np.random.default_rng(0))
    >>> bool(np.allclose((x[:, :, 0] * x[:, :, 1]).sum(axis=1), y[:, 0]))
    True
    """
    if steps < 2:
        raise OptionError(f"steps: expected 2 or more, got {steps}")
    x = np.zeros((samples, steps, 2), np.float32)
    x[:, :, 0] = random.random((samples, steps), np.float32)
    rows = np.arange(samples)
    x[rows, random.integers(0, steps // 2, samples), 1] = 1
    x[rows, random.integers(steps // 2, steps, samples), 1] = 1
    return x, (x[:, :, 0] * x[:, :, 1]).sum(axis=1, keepdims=True)


class FreshBatches:
    """Mini-batches that are never seen again; they follow from seed and epoch."""

    def __init__(self, steps: int, batch_size: int, count: int, seed: int = 0):
        self.steps, self.batch_size, self.count, self.seed = steps, batch_size, count, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the mini-batches of this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Floats, Floats]]:
        random = np.random.default_rng([self.seed, self.epoch])
        for _ in range(self.count):
            yield adding_problem(self.batch_size, self.steps, random)


class AddingNet(nn.Module):
    """A recurrent layer, and the answer from its final state.

    Args:
        net: "rnn" (tanh), "irnn" (ReLU, begun as the identity), "lstm" or "gru".
        hidden: units.
    """

    def __init__(self, net: str, hidden: int = 64):
        if net not in NETS:
            raise OptionError(f"net: expected one of {', '.join(NETS)}, got {net!r}")
        self.rnn: nn.Module = {
            "rnn": lambda: nn.RNN(2, hidden),
            "irnn": lambda: nn.RNN(2, hidden, nonlinearity="relu", identity_init=1.0),
            "lstm": lambda: nn.LSTM(2, hidden, forget_bias=2.0),
            "gru": lambda: nn.GRU(2, hidden),
        }[net]()
        self.answer = nn.Linear(hidden, 1)

    def forward(self, x: Value) -> Value:
        _, (final,) = self.rnn(x)
        result: Value = self.answer(final[0] if isinstance(final, tuple) else final)
        return result


class _Solved(Callback):
    """Ends the run where the problem is solved."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if logs["val_loss"] < SOLVED:
            self.stop_reason, self.trainer.stop_training = "solved", True


def train_adding(
    net: str,
    steps: int,
    *,
    hidden: int = 64,
    batch_size: int = 32,
    updates: int = 5000,
    every: int = 100,
    lr: float | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    workers: int | str = "auto",
    verbose: bool = False,
) -> list[float]:
    """Train on fresh sequences until the problem is solved, or for a number of updates.

    Args:
        net, hidden: see `AddingNet`.
        steps: the length of the sequences.
        updates: the most mini-batches to train on.
        every: number of updates between measurements.
        lr: learning rate of Adam; by default the one in `RATES`.

    Returns the mean squared error on 500 other sequences after each `every` updates. Raises
    KeyboardInterrupt if Ctrl-C ends the run before its time.
    """
    trainer = Trainer(
        AddingNet(net, hidden), "mse",
        optim.Adam(lr=RATES[net] if lr is None else lr, clip_global_norm=1.0),
        workers=workers, seed=seed,
    )  # fmt: skip
    history = trainer.fit(
        FreshBatches(steps, batch_size, every, seed), epochs=max(updates // every, 1),
        validation=adding_problem(500, steps, np.random.default_rng([seed, 10**6])),
        callbacks=[_Solved(), *callbacks], batch_size=100, verbose=verbose,
    )  # fmt: skip
    training.whole(history)
    return history["val_loss"]


def draw_adding(
    curves: Mapping[tuple[str, int], Sequence[float]], every: int,
    path: str | os.PathLike[str] | None = None,
) -> Figure:  # fmt: skip
    """The errors of (net, steps) over updates, a panel for each length, as a picture.

    Raises ImportError if matplotlib is missing.
    """
    lengths = sorted({steps for _, steps in curves})
    figure = files.new_figure(4.8 * len(lengths), 3.6)
    panels: Any = figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0]
    for ax, length in zip(panels, lengths, strict=True):
        for (net, steps), errors in curves.items():
            if steps == length:
                ax.plot(every * np.arange(1, len(errors) + 1), errors, label=net.upper())
        ax.axhline(GUESS, color="grey", linestyle=":", label="answer 1")
        ax.set_yscale("log")
        ax.set_title(f"adding problem, {length} steps")
        ax.set_xlabel("updates")
        ax.grid(alpha=0.3)
        ax.legend()
    panels[0].set_ylabel("mean squared error")
    if path is not None:
        files.save_figure(figure, path)
    return figure

"""Tasks for nets with a memory: copying, associative recall and sorting of random bits.

A net sees vectors of random bits and writes bits after them: the same ones (copy), the item that
came after one of them (recall), or all of them in the order of a priority that came with each
(sort). Graves, Wayne and Danihelka, "Neural Turing machines", 2014 (arXiv:1410.5401), section 4. An
LSTM of as many parameters stands beside the machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import files, nn, optim
from fastnn.errors import FastnnError, OptionError, check_whole
from fastnn.graph.value import Value
from fastnn.optim.schedules import Trapezoid
from fastnn.tasks import description
from fastnn.train.callbacks import LambdaCallback
from fastnn.train.history import History
from fastnn.train.hooks import Callback, Logs
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETS = ("ntm", "lstm")
#: vectors of an item in `recall`
ITEM = 3
#: how many times the others' learning rate that of the output layer is: what is left of the loss
#: when all bits are right falls only as logits grow
SURER = 10


class Task(NamedTuple):
    """A task's numbers.

    Attributes:
        bits: of a vector.
        shortest, longest: how many vectors (items in `recall`) a sequence of training has.
        heads: reading heads, and writing heads, of its machine.
    """

    bits: int
    shortest: int
    longest: int
    heads: int


TASKS = {"copy": Task(8, 1, 20, 1), "recall": Task(6, 2, 6, 1), "sort": Task(8, 1, 10, 5)}


class Sequences(NamedTuple):
    """Sequences of one task, padded with zeros.

    Attributes:
        x: what the net sees, float32 (sequences, steps, bits + 2).
        lengths: steps of each, integers (sequences,).
        y: the bits to write, float32 (sequences, steps, bits).
        counts: 1 where there is something to write, float32 (sequences, steps).
    """

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray
    counts: np.ndarray


def steps(task: str, vectors: int) -> int:
    """How many steps a sequence of so many vectors (or items) has."""
    return {"copy": 2 * vectors + 2, "recall": (vectors + 2) * (ITEM + 1),
            "sort": 2 * vectors + 1}[_known(task)]  # fmt: skip


def make(task: str, sizes: Sequence[int], random: np.random.Generator, most: int = 0) -> Sequences:
    """Random sequences.

    Args:
        task: "copy", "recall" or "sort".
        sizes: how many vectors (items in `recall`) each sequence has.
        most: for how many there is room; by default for the longest one.

    Raises OptionError for unknown tasks, and sizes that are too small.

    >>> found = make("copy", [2, 1], np.random.default_rng(0))
    >>> found.x.shape, found.lengths.tolist()
    ((2, 6, 10), [6, 4])
    >>> bool((found.x[0, 1:3, :8] == found.y[0, 4:6]).all())
    True
    """
    least, bits = TASKS[_known(task)].shortest, TASKS[task].bits
    if not len(sizes) or min(sizes) < least:
        raise OptionError(f"{task}: expected sequences of {least} or more, got {list(sizes)}")
    draw = {"copy": _copy, "recall": _recall, "sort": _sort}[task]
    drawn = [draw(size, bits, random) for size in sizes]
    return padded(drawn, steps(task, max(most, *sizes)))


def padded(sequences: Sequence[tuple[np.ndarray, np.ndarray]], room: int = 0) -> Sequences:
    """What the net sees of each sequence (`seen`) and its answer (vectors, bits), as one.

    Args:
        room: for how many steps there is room; by default for the longest sequence.
    """
    lengths = np.array([len(sight) for sight, _ in sequences])
    room, bits = max(room, int(lengths.max())), sequences[0][1].shape[1]
    x = np.zeros((len(sequences), room, bits + 2), np.float32)
    y = np.zeros((len(sequences), room, bits), np.float32)
    counts = np.zeros((len(sequences), room), np.float32)
    for k, (sight, answer) in enumerate(sequences):
        end = len(sight)
        x[k, :end] = sight
        y[k, end - len(answer) : end] = answer
        counts[k, end - len(answer) : end] = 1
    return Sequences(x, lengths, y, counts)


def _known(task: str) -> str:
    if task not in TASKS:
        raise OptionError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    return task


def seen(task: str, vectors: np.ndarray, priorities: np.ndarray | None = None) -> np.ndarray:
    """What the net sees of a sequence, float32 (steps, bits + 2): vectors and marks, and zeros
    while it writes.

    Args:
        vectors: bits (vectors, bits); in `recall` (items + 1, ITEM, bits), last the item that is
            asked for.
        priorities: in `sort` from -1 to 1, one of each vector.

    >>> seen("copy", np.ones((1, 8)))[:, 7:].tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    size, bits = len(vectors) - (_known(task) == "recall"), TASKS[task].bits
    x = np.zeros((steps(task, size), bits + 2), np.float32)
    if task == "copy":  # beginning, vectors, end
        x[0, bits] = x[size + 1, bits + 1] = 1
        x[1 : size + 1, :bits] = vectors
    elif task == "sort":  # vectors with their priorities, end
        x[:size, :bits], x[:size, bits], x[size, bits + 1] = vectors, priorities, 1
    else:  # a mark before each item, another one before and after the item that is asked for
        for k, item in enumerate(vectors):
            begin = k * (ITEM + 1)
            x[begin, bits + (k == size)] = 1
            x[begin + 1 : begin + 1 + ITEM, :bits] = item
        x[(size + 1) * (ITEM + 1), bits + 1] = 1
    return x


def _copy(size: int, bits: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    vectors = random.integers(0, 2, (size, bits))
    return seen("copy", vectors), vectors


def _recall(size: int, bits: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    items = random.integers(0, 2, (size, ITEM, bits))
    asked = int(random.integers(0, size - 1))
    return seen("recall", np.array([*items, items[asked]])), items[asked + 1]


def _sort(size: int, bits: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The highest priority is written first."""
    vectors, priority = random.integers(0, 2, (size, bits)), random.uniform(-1, 1, size)
    return seen("sort", vectors, priority), vectors[np.argsort(-priority)]


class FreshSequences:
    """Mini-batches of sequences that are never seen again; they follow from seed and epoch."""

    def __init__(self, task: str, batch_size: int, count: int, longest: int, seed: int = 0):
        self.task, self.batch_size, self.count = task, batch_size, count
        self.longest, self.seed, self.epoch = longest, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the mini-batches of this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        random = np.random.default_rng([self.seed, self.epoch])
        least = TASKS[self.task].shortest
        for _ in range(self.count):
            sizes = random.integers(least, self.longest + 1, self.batch_size)
            found = make(self.task, sizes.tolist(), random, self.longest)
            yield (found.x, found.lengths), found.y, found.counts


class MemoryNet(nn.Module):
    """A Neural Turing Machine for a task, or an LSTM of as many parameters.

    Args:
        task: "copy", "recall" or "sort".
        net: "ntm" or "lstm".
        slots, width, hidden: of the machine, see `nn.NTM`.

    Inputs: sequences (batch, steps, bits + 2), and their lengths, integers (batch,); output: logits
    of the bits, (batch, steps, bits).

    Raises OptionError for unknown tasks and nets, and sizes that are none.
    """

    def __init__(
        self, task: str, net: str = "ntm", *, slots: int = 128, width: int = 20, hidden: int = 100
    ):
        if net not in NETS:
            raise OptionError(f"net: expected one of {', '.join(NETS)}, got {net!r}")
        bits, heads = TASKS[_known(task)].bits, TASKS[task].heads
        self.task, self.net = task, net
        self.options = {"slots": slots, "width": width, "hidden": hidden}
        machine = nn.NTM(
            bits + 2, bits, slots=slots, width=width, hidden_size=hidden, read_heads=heads,
            write_heads=heads,
        )  # fmt: skip
        if net == "ntm":
            self.ntm = machine
        else:
            units = _units(sum(p.size for p in machine.named_arrays().values()), bits + 2, bits)
            self.lstm, self.output = nn.LSTM(bits + 2, units), nn.Linear(units, bits)
        description.mark(self, described(self))

    def forward(self, x: Value, lengths: Value) -> Value:
        if self.net == "ntm":
            outputs, _ = self.ntm(x, lengths)
        else:
            outputs = self.output(self.lstm(x, lengths=lengths)[0])
        result: Value = outputs
        return result


def _units(parameters: int, inputs: int, outputs: int) -> int:
    """Units of an LSTM of about so many parameters, with its linear layer."""
    b = 4 * (inputs + 2) + outputs
    return max(round((math.sqrt(b * b + 16 * parameters) - b) / 8), 1)


def bits_wrong(model: nn.Module, found: Sequences) -> np.ndarray:
    """Bits by which each sequence is not known, (sequences,): -log2 of its answer's probability."""
    logits = model.predict(found.x, found.lengths).astype(np.float64)
    lost = np.logaddexp(0, logits) - logits * found.y
    bits: np.ndarray = (lost * found.counts[:, :, None]).sum(axis=(1, 2)) / math.log(2)
    return bits


def measure(
    model: nn.Module, task: str, sizes: Sequence[int], *, sequences: int = 50, seed: int = 1
) -> list[float]:
    """Mean bits by which sequences of each of these sizes are not known; see `bits_wrong`."""
    means = []
    for size in sizes:
        random = np.random.default_rng([seed, size])
        means.append(make(task, [size] * sequences, random, max(sizes)))
    return [float(bits_wrong(model, found).mean()) for found in means]


def train_memory(
    task: str,
    net: str = "ntm",
    *,
    slots: int = 128,
    width: int = 20,
    hidden: int = 100,
    longest: int | None = None,
    batches: int = 500,
    batch_size: int = 16,
    epochs: int = 22,
    lr: float = 1e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History]:
    """Train on fresh sequences with Adam, the gradient cut to a norm of 10.

    Args:
        task, net, slots, width, hidden: see `MemoryNet`.
        longest: most vectors (or items) of a sequence; by default the task's.
        batches: mini-batches of an epoch.
        batch_size, epochs, lr, callbacks, seed, device, workers, resume, verbose: see `Trainer`.

    Returns the trainer, and the history with "val_bits" after each epoch: the mean bits by which
    other sequences of all sizes are not known.
    """
    model = MemoryNet(task, net, slots=slots, width=width, hidden=hidden)
    least = TASKS[task].shortest
    longest = TASKS[task].longest if longest is None else longest
    check_whole(task, least, longest=longest)
    check_whole(task, 1, batches=batches, batch_size=batch_size)
    steps = batches * epochs
    adam = optim.Adam(
        lr=lr, betas=(0.9, 0.99), clip_global_norm=10.0, groups={"*output.*": {"lr": SURER * lr}},
        schedule=Trapezoid(steps, cooldown=max(round(0.3 * steps), 1)),
    )  # fmt: skip
    trainer = Trainer(
        model, "bce_with_logits", adam, device=device, workers=workers, seed=seed
    )  # fmt: skip
    sizes = np.arange(100) % (longest + 1 - least) + least
    other = make(task, sizes.tolist(), np.random.default_rng([seed, 10**6]))

    def add(epoch: int, logs: Logs) -> None:
        logs["val_bits"] = float(bits_wrong(model, other).mean())

    history = trainer.fit(
        FreshSequences(task, batch_size, batches, longest, seed), epochs=epochs,
        callbacks=[LambdaCallback(on_epoch_end=add), *callbacks], resume=resume, verbose=verbose,
    )  # fmt: skip
    return trainer, history


# -------------------------------------------------------------------- pictures and checkpoints


def draw_weightings(
    model: MemoryNet, size: int, path: str | os.PathLike[str] | None = None, seed: int = 2
) -> Figure:
    """`draw_sequence` of a random sequence of so many vectors (or items).

    Raises ImportError and OptionError as `draw_sequence` does.
    """
    found = make(model.task, [size], np.random.default_rng(seed))
    return draw_sequence(model, found, path)


def draw_sequence(
    model: MemoryNet, found: Sequences, path: str | os.PathLike[str] | None = None
) -> Figure:
    """A sequence, what the machine writes, and where its heads are at each step, as a picture.

    Args:
        model: with net "ntm". found: the sequence, alone.

    Raises ImportError if matplotlib is missing, OptionError for an LSTM.
    """
    if model.net != "ntm":
        raise OptionError(
            f"a picture of weightings: expected a net 'ntm', got {model.net!r}, which has no heads"
        )
    outputs, places = model.ntm.predict(found.x)
    written = found.counts[0][:, None] / (1 + np.exp(-outputs[0].astype(np.float64)))
    reading = model.ntm.read_heads
    parts = [
        ("input", found.x[0]), ("to write", found.y[0]), ("written", written),
        ("read from", places[0, :, :reading].sum(axis=1)),
        ("written to", places[0, :, reading:].sum(axis=1)),
    ]  # fmt: skip
    figure = files.new_figure(6, 9)
    panels: Any = figure.subplots(len(parts), 1, sharex=True, height_ratios=[1, 1, 1, 3, 3])
    for ax, (name, picture) in zip(panels, parts, strict=True):
        ax.imshow(picture.T, aspect="auto", interpolation="nearest", cmap="gray", vmin=min(
            0.0, float(picture.min())), vmax=1.0)  # fmt: skip
        ax.set_ylabel(name)
    panels[-1].set_xlabel("step")
    if path is not None:
        files.save_figure(figure, path)
    return figure


def save_description(model: nn.Module, checkpoint: Path) -> Path:
    """Write what is needed to make the net again as JSON beside a checkpoint; its path."""
    if not isinstance(model, MemoryNet):
        raise OptionError(f"expected a MemoryNet, got {type(model).__name__}")
    return description.write(checkpoint, described(model), model)


def described(model: MemoryNet) -> dict[str, Any]:
    """What `save_description` writes."""
    return {"task": model.task, "net": model.net, "options": model.options}


def load_memory(path: str | os.PathLike[str]) -> MemoryNet:
    """A trained net.

    Args:
        path: a checkpoint with its description beside it, or the folder that `fastnn train copy`,
            `recall` or `sort` wrote.

    Raises DataError where the description is missing or bad, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "memory") as (checkpoint, state):
        files.check_options(state["options"])
        try:
            model = MemoryNet(state["task"], state["net"], **state["options"])
        except FastnnError as error:
            raise ValueError(str(error)) from None
    model.load(checkpoint)
    return model

"""Training curves at each `precision`, from the same parameters and the same batches.

    python -m benchmarks.precision_curves [--only LeNet] [--steps 400] [--picture curves.png]

Four models: a perceptron and a LeNet on MNIST, an LSTM that reads its images row by row, and one
that predicts the characters of Shakespeare's plays. On a CPU without a tile unit the products of
"high", "medium" and "bf16" are computed as on one: the code for CPUs without it has the same bits
and is slow. (With AVX-512-BF16 "bf16" has that instruction's bits, and is not slow.) Beside the
levels is "highest" from parameters that are 1e-7 larger, in relative terms: what differs by as
little as that differs by chance.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastnn as fnn
from benchmarks import harness
from fastnn import data, nn, optim
from fastnn.files import new_figure, save_figure
from fastnn.kernels.cpu import tile_unit
from fastnn.tasks.mnist_cnn import lenet

LEVELS = ("highest", "high", "medium", "bf16")
#: steps whose mean loss is a point of a curve
POINT = 20


class Task(NamedTuple):
    """A model's maker, the rate, samples of a step, and data: for training and for testing."""

    make: Callable[[], nn.Module]
    rate: float
    batch: int
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Rows(nn.Module):
    """An LSTM over the rows of an image; its last state is the image's."""

    def __init__(self, units: int) -> None:
        self.cell, self.out = nn.LSTM(28, units), nn.Linear(units, 10)

    def forward(self, x: Any) -> Any:
        return self.out(self.cell(x)[0][:, -1])


class Characters(nn.Module):
    """An LSTM's prediction of the next character."""

    def __init__(self, characters: int, units: int) -> None:
        self.embedding = nn.Embedding(characters, 64)
        self.cell, self.out = nn.LSTM(64, units), nn.Linear(units, characters)

    def forward(self, x: Any) -> Any:
        return self.out(self.cell(self.embedding(x))[0])


def tasks(tests: int = 2000) -> dict[str, Callable[[], Task]]:
    def images(shape: tuple[int, ...], make: Callable[[], nn.Module], rate: float) -> Task:
        (x, y), (xt, yt) = data.load_mnist(download=False)
        x, xt = x.reshape(-1, *shape), xt[:tests].reshape(-1, *shape)
        return Task(make, rate, 64, (x, y), (xt, yt[:tests]))

    def characters() -> Task:
        plays = data.load_shakespeare(download=False)
        count, length = len(plays.vocabulary), 50

        def cut(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = (len(ids) - 1) // length
            x, y = ids[: rows * length], ids[1 : rows * length + 1]
            return x.reshape(rows, length), y.reshape(rows, length)

        x, y = cut(plays.valid)
        test = x[: tests // 10], y[: tests // 10]
        return Task(lambda: Characters(count, 128), 2e-3, 32, cut(plays.train), test)

    def perceptron() -> nn.Module:
        return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    return {
        "MNIST, 784-128-10": lambda: images((784,), perceptron, 1e-3),
        "LeNet": lambda: images((1, 28, 28), lambda: lenet(dropout=0.0), 1e-3),
        "rows of images, LSTM 64": lambda: images((28, 28), lambda: Rows(64), 2e-3),
        "characters of Shakespeare, LSTM 128": characters,
    }


def curve(task: Task, level: str, steps: int, scale: float = 1.0) -> dict[str, Any]:
    """The losses of so many steps, and of the test data loss and share of right answers."""
    model = task.make()
    step = fnn.compile(
        model, nn.CrossEntropyLoss(), optim.Adam(lr=task.rate), precision=level, workers=1
    )
    state = model.state_dict()
    model.load_state_dict({name: (value * scale).astype("f4") for name, value in state.items()})
    rng, (x, y) = np.random.default_rng(1), task.train
    losses = []
    for _ in range(steps):
        rows = rng.integers(0, len(x), task.batch)
        losses.append(float(step(x[rows], y[rows])))
    logits = model.predict(task.test[0], precision=level).astype(np.float64)
    target = task.test[1][..., None]
    top = logits.max(-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return {
        "losses": losses,
        "last": float(np.mean(losses[-max(steps // 10, 1) :])),
        "test_loss": float(-np.take_along_axis(log_p, target, -1).mean()),
        "right": float((logits.argmax(-1) == task.test[1]).mean()),
    }


def emulate() -> bool:
    """Plan programs for a tile unit where there is none; whether that was needed."""
    if tile_unit.usable():
        return False
    tile_unit.usable = lambda: True  # type: ignore[assignment]
    return True


def measure(
    found: dict[str, Callable[[], Task]], steps: int, levels: tuple[str, ...] = LEVELS
) -> list[dict[str, Any]]:
    """A row for each model and level."""
    rows = []
    for name, make in found.items():
        task = make()
        for level, scale in (*((level, 1.0) for level in levels), ("highest", 1 + 1e-7)):
            begin = time.process_time()
            row = curve(task, level, steps, scale)
            shown = level if scale == 1.0 else "highest, changed"
            taken = time.process_time() - begin
            rows.append({"workload": name, "row": shown, **row})
            print(
                f"{name}, {shown}: {row['last']:.4f}, "
                f"test {row['test_loss']:.4f}, {row['right']:.2%} ({taken:.0f} s)",
                flush=True,
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Losses of the last tenth of the steps, and of the test data."""
    levels = list(dict.fromkeys(row["row"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["workload"] for row in rows):
        mine = {row["row"]: row for row in rows if row["workload"] == name}
        for what, number in (
            ("training loss", lambda r: f"{r['last']:.4f}"),
            ("test loss", lambda r: f"{r['test_loss']:.4f}"),
            ("right", lambda r: f"{r['right']:.2%}"),
        ):
            lines.append(
                {"model": f"{name}: {what}", **{k: number(row) for k, row in mine.items()}}
            )
    return harness.table(lines, ["model", *levels])


def picture(rows: list[dict[str, Any]], path: str) -> None:
    """Each model's curves, one over the other, and how far they are from that of "highest"."""
    names = list(dict.fromkeys(row["workload"] for row in rows))
    figure = new_figure(3.0 * len(names), 4.6)
    panels = figure.subplots(2, len(names), squeeze=False, height_ratios=(2, 1))
    for k, name in enumerate(names):
        mine = [row for row in rows if row["workload"] == name]
        points = [_points(row["losses"]) for row in mine]
        x = POINT * (np.arange(len(points[0])) + 0.5)
        for row, y in zip(mine, points, strict=True):
            style = {"linestyle": ":", "color": "grey"} if row["row"] == "highest, changed" else {}
            panels[0][k].plot(x, y, label=row["row"], linewidth=1.2, **style)
            panels[1][k].plot(x, y - points[0], linewidth=1.0, **style)
        panels[0][k].set_yscale("log")
        panels[0][k].set_title(name, fontsize="small")
        panels[1][k].set_xlabel("steps", fontsize="small")
    panels[0][0].legend(fontsize="x-small")
    panels[0][0].set_ylabel("loss", fontsize="small")
    panels[1][0].set_ylabel('less that of "highest"', fontsize="small")
    save_figure(figure, path)


def _points(losses: list[float]) -> np.ndarray:
    whole = len(losses) // POINT * POINT
    return np.asarray(losses[:whole]).reshape(-1, POINT).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose names contain this")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--picture", help="where a picture goes")
    options = parser.parse_args()
    emulated = emulate()
    found = {name: make for name, make in tasks().items() if options.only in name}
    rows = measure(found, options.steps)
    print(table(rows))
    if not options.only:
        kept = [
            {**row, "losses": {"points": [round(float(v), 5) for v in _points(row["losses"])]}}
            for row in rows
        ]
        path = harness.write(
            "precision-curves", "python -m benchmarks.precision_curves", kept, emulated=emulated
        )
        print(f"written to {path.name}")
    if options.picture:
        picture(rows, options.picture)


if __name__ == "__main__":
    main()

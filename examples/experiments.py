"""What deep-learning courses teach, tried: each experiment prints a table and draws a picture.

python examples/experiments.py depth                 # on 8x8 digits that come with scikit-learn
python examples/experiments.py activations --mnist   # on 10,000 of MNIST's digits
python examples/experiments.py all --pictures docs   # all of them

depth          deep against wide nets with as many parameters
activations    sigmoid, ReLU and maxout, from 2 to 10 layers
data           what more data bring to small and to large models
universality   one hidden layer of growing width approximates a function
saturation     large initial weights and the sigmoid's vanishing gradient
valley         gradient descent, momentum and adaptive methods in an ill-conditioned valley
batches        mini-batches against the full batch, in epochs and in seconds
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data import load_digits, load_mnist
from fastnn.diagnostics import signals
from fastnn.files import new_figure, save_figure
from fastnn.train.hooks import Callback

Data = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Table = list[list[Any]]
#: makes a table, its head first, and a picture
Experiment = Callable[[Data, int, int], tuple[Table, Any]]
#: of the curves by the number of units, so that none hides another
STYLES = {2: "-", 8: "--", 32: ":"}


def mlp(inputs: int, width: int, depth: int, kind: str = "relu", classes: int = 10) -> nn.Module:
    """`depth` hidden layers of `width` units."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        if kind == "maxout":
            layers += [nn.Linear(inputs, 2 * width), nn.Maxout(2)]
        else:
            layers += [nn.Linear(inputs, width), nn.ReLU() if kind == "relu" else nn.Sigmoid()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def errors(model, data: Data, epochs: int, seed: int, batch: int = 64, optimizer=None):
    """Training loss and test error after training with Adam."""
    trainer = fnn.Trainer(
        model, "cross_entropy", optimizer or optim.Adam(), metrics=["accuracy"], seed=seed
    )
    history = trainer.fit(*data[0], batch_size=batch, epochs=epochs, verbose=False)
    return history["loss"][-1], 1 - trainer.evaluate(*data[1])["accuracy"]


def mean(values) -> str:
    """Mean and standard deviation of shares, in per cent."""
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values):.2f} %"


def depth(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """Deep against wide: as many parameters in 1 to 8 hidden layers."""
    inputs = data[0][0].shape[1]
    budget = (inputs + 11) * 256 + 10  # one hidden layer of 256
    table: Table = [["hidden layers", "width", "parameters", "training loss", "test error"]]
    depths, means = (1, 2, 3, 4, 6, 8), []
    for layers in depths:
        # (layers - 1) w^2 + (inputs + layers + 10) w + 10 = budget
        a, b, c = layers - 1, inputs + layers + 10, 10 - budget
        width = round(-c / b if a == 0 else (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a))
        found = []
        for seed in range(seeds):
            model = mlp(inputs, width, layers)
            found.append(errors(model, data, epochs, seed))
        size = sum(p.size for p in model.named_parameters().values())
        losses, wrong = zip(*found, strict=True)
        table.append([layers, width, f"{size:,}", f"{np.mean(losses):.4f}", mean(wrong)])
        means.append(100 * np.mean(wrong))
    figure = new_figure(5.0, 3.6)
    ax = figure.subplots()
    ax.plot(depths, means, marker="o")
    label(ax, f"hidden layers, {budget:,} parameters", "test error, %")
    return table, figure


def activations(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """Sigmoid, ReLU and maxout from 2 to 10 hidden layers of 64 units."""
    (x, y), _ = data
    depths, kinds = (2, 4, 6, 8, 10), ("sigmoid", "relu", "maxout")
    table: Table = [["hidden layers", *kinds, *(f"gradient, {kind}" for kind in kinds)]]
    curves: dict[str, list[float]] = {kind: [] for kind in kinds}
    for layers in depths:
        cells, ratios = [], []
        for kind in kinds:
            found = []
            for seed in range(seeds):
                model = mlp(x.shape[1], 64, layers, kind)
                if seed == 0:
                    model.store(seed=0)
                    flow = signals(model, x[:64], y[:64], "cross_entropy").layers
                    ratios.append(f"{flow[0].gradient_rms / flow[-1].gradient_rms:.1e}")
                found.append(errors(model, data, epochs, seed)[1])
            cells.append(mean(found))
            curves[kind].append(100 * float(np.mean(found)))
        table.append([layers, *cells, *ratios])
    figure = new_figure(5.0, 3.6)
    ax = figure.subplots()
    for kind, values in curves.items():
        ax.plot(depths, values, marker="o", label=kind)
    label(ax, "hidden layers", "test error, %")
    by_factors(ax, (3, 5, 10, 20, 50, 100))
    ax.legend()
    return table, figure


def data(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """More data for a linear model, small and large nets, and a large one with dropout."""
    (x, y), test = data
    inputs = x.shape[1]
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(inputs, 10),
        "32 units": lambda: mlp(inputs, 32, 1),
        "2 x 512 units": lambda: mlp(inputs, 512, 2),
        "the same, dropout": lambda: nn.Sequential(
            nn.Dropout(0.2), nn.Linear(inputs, 512), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10),
        ),
    }  # fmt: skip
    sizes = [n for n in (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000) if n < len(x)]
    sizes.append(len(x))
    order = np.random.default_rng(0).permutation(len(x))
    table: Table = [["samples", *makers]]
    for size in sizes:
        part = (x[order[:size]], y[order[:size]]), test
        # as many updates for small sets as for large ones, within reason
        rounds = max(epochs, min(20 * epochs, 1000 * epochs // size))
        row = [f"{size:,}"]
        for make in makers.values():
            wrong = [errors(make(), part, rounds, seed, 32)[1] for seed in range(seeds)]
            row.append(mean(wrong))
        table.append(row)
    figure = new_figure(5.4, 3.8)
    ax = figure.subplots()
    for k, name in enumerate(makers, 1):
        ax.plot(sizes, [float(row[k].split()[0]) for row in table[1:]], marker="o", label=name)
    ax.set_xscale("log")
    label(ax, "training samples", "test error, %")
    by_factors(ax, (3, 5, 10, 20, 40))
    ax.legend()
    return table, figure


def universality(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """One hidden layer of tanh units approximates a continuous function: a wave with a kink."""
    x = np.linspace(-1, 1, 400).reshape(-1, 1)
    y = np.sin(8 * x) * 0.5 + np.abs(x)
    widths = (1, 2, 4, 8, 16, 32, 64)
    table: Table = [["hidden units", "root mean square error", "largest error"]]
    figure = new_figure(10.0, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(x, y, color="lightgrey", linewidth=6, label="function")
    sizes = []
    for width in widths:
        best = None
        for seed in range(seeds):
            model = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))
            trainer = fnn.Trainer(model, "mse", optim.LBFGS(), dtype="float64", seed=seed)
            # tanh units whose kinks lie all over the interval
            source = np.random.default_rng(seed)
            slopes = source.normal(size=(width, 1)) * 8
            model[0].weight.value = slopes
            model[0].bias.value = -slopes[:, 0] * source.uniform(-1, 1, width)
            trainer.fit(x, y, epochs=40 * epochs, verbose=False)
            found = model.predict(x, batch_size=len(x))
            rms = float(np.sqrt(((found - y) ** 2).mean()))
            if best is None or rms < best[0]:
                best = rms, float(np.abs(found - y).max()), found
        assert best is not None
        table.append([width, f"{best[0]:.4f}", f"{best[1]:.3f}"])
        sizes.append(best[0])
        if width in (2, 8, 32):
            left.plot(x, best[2], STYLES[width], label=f"{width} units")
    left.legend(fontsize="small")
    label(left, "x", "y")
    right.loglog(widths, sizes, marker="o")
    label(right, "hidden units", "root mean square error")
    return table, figure


def saturation(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """Five hidden layers whose initial weights are scaled: sigmoid and ReLU."""
    (x, y), _ = data
    scales = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    table: Table = [["scale of the weights", "saturated", "gradient, sigmoid", "loss, sigmoid",
                     "gradient, ReLU", "loss, ReLU"]]  # fmt: skip
    figure = new_figure(10.0, 3.6)
    panels = dict(zip(("sigmoid", "relu"), figure.subplots(1, 2), strict=True))
    for scale in scales:
        row: list[Any] = [f"{scale:g}"]
        for kind, ax in panels.items():
            model = mlp(x.shape[1], 64, 5, kind)
            model.store(seed=0)
            for name, parameter in model.named_parameters().items():
                if name.endswith("weight"):
                    parameter.value = np.asarray(parameter.value) * scale
            flow = signals(model, x[:256], y[:256], "cross_entropy").layers
            if kind == "sigmoid":
                row.append(f"{np.nanmean([layer.saturated for layer in flow]):.0%}")
            row.append(f"{flow[0].gradient_rms:.1e}")
            ax.plot([layer.gradient_rms for layer in flow[::2]], marker="o", label=f"{scale:g}")
            try:
                row.append(f"{errors(model, data, epochs, 0)[0]:.3f}")
            except fnn.errors.NonFiniteError:
                row.append("not finite")
        table.append(row)
    for kind, ax in panels.items():
        ax.set_yscale("log")
        ax.set_title(kind)
        label(ax, "layer", "gradient of a sample")
        ax.legend(title="scale", fontsize="small")
    return table, figure


def valley(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """Steps down a valley that is fifty times as steep across as along, at each one's best rate."""
    ways: dict[str, Callable[[float], optim.Optimizer]] = {
        "gradient descent": lambda lr: optim.SGD(lr=lr),
        "momentum": lambda lr: optim.SGD(lr=lr, momentum=0.9),
        "Nesterov": lambda lr: optim.SGD(lr=lr, momentum=0.9, nesterov=True),
        "AdaGrad": lambda lr: optim.Adagrad(lr=lr),
        "RMSprop": lambda lr: optim.RMSprop(lr=lr),
        "Adam": lambda lr: optim.Adam(lr=lr),
    }
    steps = 30 * epochs
    height = fnn.plot.SURFACES["valley"].height
    table: Table = [["method", "best rate", "steps to a height of 1e-3"]]
    best = {}
    for name, make in ways.items():
        found = []
        for rate in np.geomspace(1e-3, 3.0, 24):
            path = fnn.plot.descend("valley", make(float(rate)), steps)
            with np.errstate(over="ignore", invalid="ignore"):  # too high a rate leaves all numbers
                heights = height(path[:, 0], path[:, 1])
            above = np.flatnonzero(~(heights < 1e-3))
            reached = int(above[-1]) + 1 if above[-1] + 1 < len(heights) else steps + 1
            found.append((reached, float(rate)))
        reached, rate = min(found)
        best[name] = make(rate)
        table.append([name, f"{rate:.3g}", reached if reached <= steps else f"more than {steps}"])
    return table, fnn.plot.optimizer_paths("valley", best, min(steps, 300))


class Watch(Callback):
    """Notes the processor seconds and the loss after each epoch."""

    def on_train_begin(self, logs):
        self.begin, self.seconds, self.losses, self.enough = time.process_time(), [], [], 0

    def on_epoch_end(self, epoch, logs):
        self.seconds.append(time.process_time() - self.begin)
        self.losses.append(logs["loss"])
        if logs["accuracy"] >= 0.97:
            self.enough = epoch + 1
            self.trainer.stop_training = True


def batches(data: Data, epochs: int, seeds: int) -> tuple[Table, Any]:
    """Batch sizes from 1 to all samples, each at its best rate: epochs and seconds to 97 %."""
    (x, y), _ = data
    table: Table = [["batch", "method", "best rate", "epochs to 97 %", "seconds"]]
    figure = new_figure(10.0, 3.6)
    left, right = figure.subplots(1, 2)
    for size in (1, 8, 32, 128, 1024, len(x)):
        full = size == len(x)
        found = []
        rates = (0.01, 0.03, 0.1, 0.3, 1.0)
        for rate in rates if size >= 8 else rates[:3]:
            watch = trained(x, y, size, optim.SGD(lr=rate), epochs * (20 if full else 4))
            if watch is not None:
                found.append((watch.enough or 10**6, watch.seconds[-1], rate, watch))
        *_, rate, watch = min(found, key=lambda f: f[:2])
        name = "all" if full else str(size)
        rows = [(name, "SGD", f"{rate:g}", watch)]
        if full:
            own = trained(x, y, size, optim.LBFGS(), epochs * 20)
            rows.append((name, "L-BFGS", "-", own))
        for batch, method, used, seen in rows:
            reached = seen.enough
            cells = [reached, f"{seen.seconds[-1]:.2f}"] if reached else ["-", "-"]
            table.append([batch, method, used, *cells])
            left.plot(range(1, len(seen.losses) + 1), seen.losses, label=f"{batch}, {method}")
            right.plot(seen.seconds, seen.losses)
    for ax, what in ((left, "epoch"), (right, "seconds")):
        ax.set_xscale("log")
        ax.set_yscale("log")
        label(ax, what, "training loss")
    figure.legend(*left.get_legend_handles_labels(), title="batch", loc="outside right upper")
    return table, figure


def trained(x, y, size: int, optimizer, epochs: int) -> Watch | None:
    """A training to 97 % of the training data by one worker; None where it leaves all numbers."""
    watch = Watch()
    trainer = fnn.Trainer(
        mlp(x.shape[1], 128, 1), "cross_entropy", optimizer, metrics=["accuracy"], seed=0, workers=1
    )
    options = {} if isinstance(optimizer, optim.LBFGS) else {"batch_size": size}
    try:
        trainer.fit(x, y, epochs=epochs, callbacks=[watch], verbose=False, **options)
    except fnn.errors.NonFiniteError:
        return None
    return watch


def by_factors(ax, marks: tuple[int, ...]) -> None:
    """A logarithmic axis of percentages with these marks."""
    ax.set_yscale("log")
    ax.set_yticks(marks, [f"{mark}" for mark in marks])
    ax.minorticks_off()


def label(ax, x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.3)


EXPERIMENTS: dict[str, Experiment] = {
    "depth": depth,
    "activations": activations,
    "data": data,
    "universality": universality,
    "saturation": saturation,
    "valley": valley,
    "batches": batches,
}


def main(arguments: list[str] | None = None) -> dict[str, Table]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*EXPERIMENTS, "all"], metavar="NAME")
    parser.add_argument("--mnist", action="store_true", help="10,000 of MNIST's digits")
    parser.add_argument("--folder", type=Path, help="where MNIST's files are, else they are loaded")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    options = parser.parse_args(arguments)
    if options.mnist:
        train, test = load_mnist(folder=options.folder) if options.folder else load_mnist()
        flat = [(np.reshape(a, (len(a), -1)), b) for a, b in (train, test)]
        digits: Data = ((flat[0][0][:10_000], flat[0][1][:10_000]), flat[1])
    else:
        digits = load_digits()
    tables = {}
    for name in EXPERIMENTS if "all" in options.names else options.names:
        experiment = EXPERIMENTS[name]
        table, figure = experiment(digits, options.epochs, options.seeds)
        print(f"\n{experiment.__doc__}\n", flush=True)
        for number, row in enumerate(table):
            print("| " + " | ".join(map(str, row)) + " |")
            if number == 0:
                print("|" + "---|" * len(row), flush=True)
        if options.pictures:
            save_figure(figure, options.pictures / f"experiment-{name}.png")
        tables[name] = table
    return tables


if __name__ == "__main__":
    main()

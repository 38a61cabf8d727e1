"""`fastnn train`: trains a model on data that needs no download."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnn.cli import INTERRUPTED

if TYPE_CHECKING:
    from fastnn.runtime.cpu.ahead import Variant
    from fastnn.train.history import History
    from fastnn.train.trainer import Trainer


@click.group()
def train() -> None:
    """Train a model that needs no download."""


def _sizes(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"expected sizes such as 256,128, got {text!r}")
    return sizes


def _workers(ctx: click.Context, option: click.Parameter, text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise click.BadParameter(f"expected 'auto' or a number of threads from 1, got {text!r}")
    return int(text)


@train.command()
@click.option(
    "--hidden",
    default="256,128",
    show_default=True,
    callback=_sizes,
    help="Sizes of the hidden layers.",
)
@click.option(
    "--epochs",
    default=80,
    show_default=True,
    type=click.IntRange(1),
    help="Passes over the training data.",
)
@click.option(
    "--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Samples in a step."
)
@click.option(
    "--optimizer",
    default="adam",
    show_default=True,
    help="sgd, adagrad, rmsprop, adadelta, adam or adamw.",
)
@click.option(
    "--lr",
    default=2e-3,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Learning rate at the beginning; it falls to 0 along a cosine.",
)
@click.option(
    "--dropout",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of hidden units left out; half of it of the pixels.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="The whole run follows from it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--workers",
    default="auto",
    show_default=True,
    callback=_workers,
    help="Threads; the result is the same for any number.",
)
@click.option(
    "--output",
    default="runs/digits",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for what is written.",
)
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A checkpoint to go on from, with the options it was trained with.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def digits(ctx: click.Context, /, output: Path, epochs: int, batch_size: int, quiet: bool,
           resume: Path | None, **options: Any) -> None:  # fmt: skip
    """Handwritten digits: 1,797 images of 8×8 pixels that come with scikit-learn.

    Trains on four fifths of them, tests on the rest, and writes a checkpoint, a table of the epochs
    and a picture of the learning curves.
    """
    from fastnn.data.digits import load_digits
    from fastnn.runtime.cpu import ahead

    training, test = load_digits()
    steps = -(-len(training[0]) // batch_size) * epochs
    trainer = digits_trainer(steps=steps, **options)
    output.mkdir(parents=True, exist_ok=True)
    ahead.ensure(digits_variants(trainer, training, test, batch_size))
    history = trainer.fit(
        *training, epochs=epochs, batch_size=batch_size, validation=test, resume=resume,
        verbose=not quiet,
    )  # fmt: skip
    written = _write(trainer, history, output)
    accuracy = trainer.evaluate(*test)["accuracy"]
    for what, path in written:
        click.echo(f"{what:<15} {path}")
    click.echo(f"test accuracy   {100 * accuracy:.2f} % of {len(test[0])} images")
    if history.stopped == "interrupted":
        click.echo(
            f"interrupted in epoch {trainer.place[0] + 1}; go on with the same options and "
            f"--resume {output / 'model.safetensors'}"
        )
        ctx.exit(INTERRUPTED)


def digits_trainer(
    *, steps: int, hidden: tuple[int, ...] = (256, 128), optimizer: str = "adam",
    lr: float = 2e-3, dropout: float = 0.3, seed: int = 0, device: str = "auto",
    workers: int | str = "auto",
) -> Trainer:  # fmt: skip
    """The trainer of `fastnn train digits` for a run of so many steps.

    Raises OptionError for an optimiser or device that is not there.
    """
    from fastnn import nn
    from fastnn.errors import OptionError
    from fastnn.optim.schedules import CosineAnnealing
    from fastnn.train.trainer import OPTIMIZERS, Trainer

    if optimizer not in OPTIMIZERS:
        raise OptionError(
            f"--optimizer: expected one of {', '.join(OPTIMIZERS)}, got {optimizer!r}"
        )
    layers: list[nn.Module] = [nn.Dropout(dropout / 2)]
    size = 64
    for units in hidden:
        layers += [nn.Linear(size, units), nn.ReLU(), nn.Dropout(dropout)]
        size = units
    layers.append(nn.Linear(size, 10))
    return Trainer(
        nn.Sequential(*layers), loss="cross_entropy",
        optimizer=OPTIMIZERS[optimizer](lr=lr, schedule=CosineAnnealing(steps)),
        metrics=["accuracy"], device=device, workers=workers, seed=seed,
    )  # fmt: skip


def digits_variants(trainer: Trainer, training: Any, test: Any, batch_size: int) -> list[Variant]:
    """All compiled code that the run needs, so that it is compiled together."""
    from fastnn.data.arrays import as_arrays
    from fastnn.runtime.cpu import ahead

    found: dict[Variant, None] = {}
    for (x, y), is_training in ((training, True), (test, False)):
        inputs, targets = as_arrays(x, "x", "inputs"), as_arrays(y, "y", "targets")
        memory = {**inputs.sources(), **targets.sources()}
        batch = min(batch_size, len(x))
        built = trainer.built(inputs.specs, targets.specs, batch, "gather", is_training)
        found.update(dict.fromkeys(ahead.variants(built.program, memory)))
    return list(found)


def _write(trainer: Trainer, history: History, output: Path) -> list[tuple[str, Path]]:
    """Checkpoint, table and picture; what each is, and where."""
    checkpoint, table, picture = (
        output / name for name in ("model.safetensors", "history.csv", "learning-curve.png")
    )
    trainer.save(checkpoint)
    written = [("checkpoint", checkpoint)]
    if history.epoch:
        history.to_csv(table)
        written.append(("history", table))
        if _drawn(lambda: history.plot(picture)):
            written.append(("learning curve", picture))
    return written


def _drawn(draw: Callable[[], object]) -> bool:
    try:
        draw()
    except ImportError as error:
        print(f"no learning curve: {error}", file=sys.stderr)
        return False
    return True

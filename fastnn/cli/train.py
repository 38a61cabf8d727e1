"""`fastnn train`: trains a model on a task's data and tests it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnn.cli import TASK_MODULES, TASKS, check_values, options, suggest

if TYPE_CHECKING:
    from fastnn.runtime.cpu.ahead import Variant
    from fastnn.train.trainer import Trainer


class Tasks(click.Group):
    """Loads a task's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *TASKS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in TASKS:
            return super().get_command(ctx, name)
        command = name.replace("-", "_")
        module = importlib.import_module(f"fastnn.cli.{TASK_MODULES.get(name, command)}")
        found: click.Command = getattr(module, command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        suggest(ctx, self, args)
        return check_values(ctx, super().resolve_command(ctx, args))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {name: command.get_short_help_str(100) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([*own.items(), *TASKS.items()])


class OptimizerName(click.Option):
    """An option for an optimiser's name; its help lists those there are, looked up when asked."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = f"One of {', '.join(sorted(by_batches()))}."
        return super().get_help_record(ctx)


def by_batches() -> dict[str, Any]:
    """Optimisers by name, but for those that take all samples for each of their steps."""
    from fastnn.optim.full_batch import FullBatch
    from fastnn.train.options import optimizers

    return {
        name: kind
        for name, kind in optimizers().items()
        if not (isinstance(kind, type) and issubclass(kind, FullBatch))
    }


@click.group(cls=Tasks)
def train() -> None:
    """Train a model on a task's data and test it."""


@train.command()
@click.option(
    "--hidden",
    default="256,128",
    show_default=True,
    callback=options.check_sizes,
    help="Sizes of the hidden layers.",
)
@click.option("--optimizer", cls=OptimizerName, default="adam", show_default=True)
@options.share("--dropout", 0.3, "Probability of dropping a hidden unit; half of it for pixels.")
@options.running(
    output="runs/digits",
    epochs=80,
    batch_size=32,
    lr=2e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def digits(ctx: click.Context, /, output: Path, epochs: int, batch_size: int, quiet: bool,
           resume: Path | None, **more: Any) -> None:  # fmt: skip
    """Handwritten digits: 1,797 images of 8×8 pixels that come with scikit-learn.

    Trains on four fifths of them, tests on the rest, and writes a checkpoint, a table of the epochs
    and a plot of the learning curves.
    """
    from fastnn.data.digits import load_digits
    from fastnn.runtime.cpu import ahead

    training, test = load_digits()
    steps = -(-len(training[0]) // batch_size) * epochs
    trainer = digits_trainer(steps=steps, **more)
    output = options.folder(output)
    ahead.ensure(digits_variants(trainer, training, test, batch_size))
    history = trainer.fit(
        *training, epochs=epochs, batch_size=batch_size, validation=test, resume=resume,
        verbose=not quiet, callbacks=[options.KeepCheckpoint(output)],
    )  # fmt: skip
    written = options.write(trainer, history, output)
    accuracy = trainer.evaluate(*test)["accuracy"]
    measure = f"{100 * accuracy:.2f} % of {len(test[0])} images"
    options.conclude(ctx, trainer, history, written, [("test accuracy", measure)])


def digits_trainer(
    *, steps: int, hidden: tuple[int, ...] = (256, 128), optimizer: str = "adam",
    lr: float = 2e-3, dropout: float = 0.3, seed: int = 0, device: str = "auto",
    workers: int | str = "auto",
) -> Trainer:  # fmt: skip
    """The trainer of `fastnn train digits` for a run of so many steps.

    Raises OptionError for an optimiser or device that is not there.
    """
    from fastnn import nn, optim
    from fastnn.errors import OptionError
    from fastnn.optim.schedules import CosineAnnealing
    from fastnn.train.trainer import Trainer

    known = by_batches()
    if optimizer not in known:
        raise OptionError(
            f"--optimizer: expected one of {', '.join(sorted(known))}, got {optimizer!r}"
        )
    kind, more = known[optimizer], {}
    if kind is not optim.ScheduleFreeAdamW:  # whose average takes a schedule's place
        more = {"schedule": CosineAnnealing(steps)}
    layers: list[nn.Module] = [nn.Dropout(dropout / 2)]
    size = 64
    for units in hidden:
        layers += [nn.Linear(size, units), nn.ReLU(), nn.Dropout(dropout)]
        size = units
    layers.append(nn.Linear(size, 10))
    return Trainer(
        nn.Sequential(*layers), loss="cross_entropy", optimizer=kind(lr=lr, **more),
        metrics=["accuracy"], device=device, workers=workers, seed=seed,
    )  # fmt: skip


def digits_variants(trainer: Trainer, training: Any, test: Any, batch_size: int) -> list[Variant]:
    """All compiled code that the run needs, so that it is compiled together."""
    from fastnn.engine.arrays import as_arrays
    from fastnn.runtime.cpu import ahead

    found: dict[Variant, None] = {}
    for (x, y), is_training in ((training, True), (test, False)):
        inputs, targets = as_arrays(x, "x", "inputs"), as_arrays(y, "y", "targets")
        memory = {**inputs.sources(), **targets.sources()}
        batch = min(batch_size, len(x))
        built = trainer.built(inputs.specs, targets.specs, batch, "gather", is_training)
        found.update(dict.fromkeys(ahead.variants(built.program, memory)))
    return list(found)

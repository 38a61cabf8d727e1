"""What the commands that train have in common: their options, what they write and say."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnn import files
from fastnn.cli import INTERRUPTED, KEPT
from fastnn.cli.interrupts import patiently
from fastnn.cli.ranges import Number, Whole
from fastnn.errors import OptionError
from fastnn.train.hooks import Callback, Logs

if TYPE_CHECKING:
    from fastnn.train.history import History
    from fastnn.train.trainer import Trainer

Command = Callable[..., Any]
CHECKPOINT = "model.safetensors"


def check_sizes(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Sizes such as 256,128."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:  # an empty part too
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"expected sizes such as 256,128, got {text!r}")
    return sizes


def check_workers(ctx: click.Context, option: click.Parameter, text: str) -> int | str:
    """'auto' or a number of threads."""
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise click.BadParameter(f"expected 'auto' or a number of threads >= 1, got {text!r}")
    return int(text)


def count(name: str, default: int, text: str) -> Callable[[Command], Command]:
    """An option for a whole number from 1."""
    return click.option(
        name, default=default, show_default=True, type=Whole(1), help=text
    )  # fmt: skip


def share(name: str, default: float, text: str) -> Callable[[Command], Command]:
    """An option for a number from 0 on, below 1."""
    return click.option(
        name, default=default, show_default=True, type=Number(0, 1, max_open=True),
        help=text,
    )  # fmt: skip


def own_folder(holds: str) -> Callable[[Command], Command]:
    """An option for a folder with files of a user's own, in the place of the public ones."""
    return click.option(
        "--folder", type=click.Path(file_okay=False, path_type=Path),
        help=f"Files of your own in the place of the public ones: {holds}.",
    )  # fmt: skip


def language_model(command: Command) -> Command:
    """The options that language models of characters and words have in common."""
    options: list[Callable[[Command], Command]] = [
        click.option("--tied", is_flag=True,
                     help="Use the embedding as the weights of the logits too."),
        click.option("--variational", is_flag=True,
                     help="Draw one dropout mask for all steps of a sequence."),
        click.option("--transformer", is_flag=True,
                     help="Causal Transformer layers of --hidden instead of the LSTM."),
        count("--heads", 4, "Heads of the Transformer's attention."),
        share("--weight-drop", 0.0, "Dropout probability of recurrent weights."),
        share("--word-dropout", 0.0, "Probability that a symbol's embedding is zero for a batch."),
        click.option(
            "--precision", default="highest", show_default=True,
            type=click.Choice(["highest", "high", "medium", "bf16", "fp16"]),
            help="Of matrix products.",
        ),
        click.option(
            "--ngram", default=0, show_default=True, type=Whole(0),
            help="Measure mixed with n-grams of the training text, so long, as well; 0 does not.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


#: options that one kind of net has no use for -> what they are expected with
ONE_NET = {
    "heads": "--transformer only",
    "embedding": "an LSTM only; the Transformer's vectors have the size of --hidden",
    **dict.fromkeys(("cache", "dynamic", "ngram"), "an LSTM only, which carries its state"),
}


def check_net(ctx: click.Context) -> None:
    """An error for an option that the chosen net, LSTM or Transformer, has no use for."""
    for name, expected in ONE_NET.items():
        default = ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT
        wrong = ctx.params["transformer"] != (name == "heads")
        if ctx.params.get(name) and not default and wrong:
            raise click.UsageError(f"--{name}: expected with {expected}")


def checkpoint_in(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A folder stands for the checkpoint that a run has written to it."""
    if value is None:
        return None
    place = files.as_path(value, "--resume", OptionError)
    return place / CHECKPOINT if os.path.isdir(place) else place


def running(*, output: str, epochs: int, batch_size: int, lr: float, rate: str,
            batch: str = "Samples per step.") -> Callable[[Command], Command]:  # fmt: skip
    """The options of every run.

    Args:
        output, epochs, batch_size, lr: their defaults.
        rate: help on the learning rate.
        batch: help on the batch size.
    """
    options = [
        count("--epochs", epochs, "Passes over the training data."),
        count("--batch-size", batch_size, batch),
        click.option(
            "--lr", default=lr, show_default=True, type=Number(0, min_open=True),
            help=rate,
        ),
        click.option(
            "--seed", default=0, show_default=True, type=Whole(0),
            help="Seed of all random numbers of the run.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
        click.option(
            "--workers", default="auto", show_default=True, callback=check_workers,
            help="Threads; the result is the same for any number.",
        ),
        click.option(
            "--output", default=output, show_default=True,
            type=click.Path(file_okay=False, path_type=Path), help="Output folder.",
        ),
        click.option(
            "--resume", type=click.Path(path_type=Path), callback=checkpoint_in,
            help="Checkpoint to resume from, or its folder; give the options it was trained with.",
        ),
        click.option("--quiet", is_flag=True, help="Do not show progress."),
    ]  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def folder(output: Path) -> Path:
    """A folder that exists; `~` is the home folder."""
    output = files.as_path(output, "--output", OptionError)
    remedy = "choose another with --output"
    with files.told(f"folder {str(output)!r} cannot be made", remedy, OptionError):
        output.mkdir(parents=True, exist_ok=True)
    return output


class KeepCheckpoint(Callback):
    """Makes the folder before anything is trained for it, and writes the checkpoint as soon as
    training has ended, also by Ctrl-C; further ones wait for it. What is measured then may take
    long, and be cut off.
    """

    passive = True

    def __init__(self, output: Path, name: str = CHECKPOINT):
        self.output, self.name = output, name

    def on_train_begin(self, logs: Logs) -> None:
        folder(self.output)

    def on_train_end(self, logs: Logs) -> None:
        trainer: Any = self.trainer
        if not trainer.history.stopped:  # an error has ended it
            return
        checkpoint = folder(self.output) / self.name
        with patiently():
            trainer.save(checkpoint)
            context = click.get_current_context(silent=True)
            if context is not None and self.name == CHECKPOINT:
                context.meta[KEPT] = checkpoint


def write(trainer: Trainer, history: History, output: Path) -> list[tuple[str, Path]]:
    """Write checkpoint, table and picture; what each is, and where."""
    output = folder(output)
    checkpoint, table, picture = (
        output / name for name in (CHECKPOINT, "history.csv", "learning-curve.png")
    )
    with patiently():
        trainer.save(checkpoint)
    written = [("checkpoint", checkpoint)]
    if history.epoch:
        history.to_csv(table)
        written.append(("history", table))
        if drawn(lambda: history.plot(picture)):
            written.append(("learning curve", picture))
    return written


def interrupted(history: History) -> bool:
    """Whether Ctrl-C has ended the run: then nothing more is measured."""
    return history.stopped == "interrupted"


def drawn(draw: Callable[[], object]) -> bool:
    """Whether a picture could be drawn; where it could not, says why."""
    try:
        draw()
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
        return False
    return True


def conclude(
    ctx: click.Context, trainer: Trainer, history: History, written: list[tuple[str, Path]],
    measures: list[tuple[str, str]],
) -> None:  # fmt: skip
    """Say what was written and measured; exit as shells have it after Ctrl-C."""
    for what, found in [*written, *measures]:
        click.echo(f"{what:<15} {found}")
    if interrupted(history):
        click.echo(
            f"interrupted in epoch {trainer.place[0] + 1}; resume with the same options and "
            f"--resume {shlex.quote(str(written[0][1]))}"
        )
        ctx.exit(INTERRUPTED)

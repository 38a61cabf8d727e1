"""What the tasks on recordings have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastnn.cli import options
from fastnn.cli.ranges import Number, Whole

Splits = Callable[..., Any]


def described(*, folder: str, required: bool = False, speed: bool = True, epochs: int = 15,
              output: str) -> Callable[[options.Command], options.Command]:  # fmt: skip
    """The options of a task on recordings.

    Args:
        folder: help on the folder.
        required: whether it has to be given.
        speed: whether changes of speed are among those that are made.
        epochs, output: their defaults.
    """
    changes = "speed, rooms and noise" if speed else "rooms and noise"
    given: list[Callable[[options.Command], options.Command]] = [
        click.option("--folder", type=click.Path(file_okay=False, path_type=Path),
                     required=required, help=folder),
        click.option("--held-out", "share", default=0.2, show_default=True,
                     type=Number(0, 1, min_open=True, max_open=True),
                     help="Share of a folder's recordings to test with."),
        click.option("--rate", type=Whole(1000),
                     help="Samples a second; other recordings of the folder are converted."),
        click.option("--front", type=click.Choice(["sinc", "conv"]), default="sinc",
                     show_default=True, help="First layer: band-pass filters, or any filters."),
        options.count("--channels", 64, "Channels of the first three convolutions."),
        options.share("--dropout", 0.2, "Dropout probability before the last layer."),
        click.option("--augment/--no-augment", default=True, show_default=True,
                     help=f"Change the recordings in every epoch: {changes}."),
        click.option("--seconds", default=3.0, show_default=True, type=Number(0.15),
                     help="Longer recordings are cut into pieces of this length."),
        options.running(
            output=output, epochs=epochs, batch_size=32, lr=3e-3,
            rate="Initial learning rate; it decays to 0 along a cosine.",
        ),
    ]  # fmt: skip

    def add(command: options.Command) -> options.Command:
        for option in reversed(given):
            command = option(command)
        return command

    return add


def run(
    ctx: click.Context, splits: Splits, what: str, *, folder: Path | None, rate: int | None,
    augment: bool, speed: bool = True, seconds: float, output: Path, quiet: bool, seed: int,
    share: float, **more: Any,
) -> None:  # fmt: skip
    """Train and test, write checkpoint, description, table and pictures, and say what was measured.

    Args:
        ctx: of the command.
        splits: a function of `fastnn.tasks.recordings`, given the folder and what is to be read.
        what: what the test recordings are, for the last line.
        folder, rate, augment, speed, seconds, output, quiet, seed, share, more: the options.
    """
    from fastnn.tasks import raw_audio

    reading = {} if folder is None else {"rate": rate, "convert": rate is not None}
    train, test = splits(folder, share=share, seed=seed, **reading)
    change = raw_audio.usual_changes(train.rate, speed) if augment else None
    trainer, history, accuracy = raw_audio.train_raw_audio(
        train, test, augment=change, seconds=seconds, seed=seed, verbose=not quiet,
        callbacks=[options.KeepCheckpoint(output)], **more,
    )  # fmt: skip
    written = options.write(trainer, history, output)
    model = trainer.model
    assert isinstance(model, raw_audio.RawAudioNet)
    described = raw_audio.save_description(written[0][1], model, train.classes, seconds)
    written.append(("description", described))
    measures = [("test accuracy", f"{100 * accuracy:.2f} % of {len(test):,} recordings{what}")]
    options.conclude(ctx, trainer, history, written, measures)

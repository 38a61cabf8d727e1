"""`fastnn train spoken-digits`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options


@click.command("spoken-digits")
@click.option(
    "--split",
    type=click.Choice(["official", "speaker"]),
    default="official",
    show_default=True,
    help="Test on other recordings of the same speakers, or on two other speakers.",
)
@options.count("--hidden", 64, "Units of each layer and direction.")
@options.count("--layers", 2, "LSTM layers.")
@options.share("--dropout", 0.3, "Share of units left out between layers.")
@options.running(
    output="runs/spoken-digits",
    epochs=15,
    batch_size=32,
    lr=4e-3,
    rate="Learning rate at the beginning; it falls to 0 along a cosine.",
)
@click.pass_context
def spoken_digits(
    ctx: click.Context, /, split: str, output: Path, quiet: bool, **more: Any
) -> None:  # fmt: skip
    """Spoken digits: 3,000 recordings of six speakers, 16 MB to download.

    An LSTM in both directions on cepstra. FASTNN_DATA names a folder that has the data already.
    """
    from fastnn.tasks.spoken_digits import splits, train_spoken_digits

    train, test = splits(split)
    trainer, history, accuracy = train_spoken_digits(
        train, test, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    who = " of speakers not heard before" if split == "speaker" else ""
    measures = [("test accuracy", f"{100 * accuracy:.2f} % of {len(test)} recordings{who}")]
    options.conclude(ctx, trainer, history, options.write(trainer, history, output), measures)

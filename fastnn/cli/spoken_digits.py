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
    help="Test on other recordings of the same speakers, or on two unseen speakers.",
)
@options.count("--hidden", 64, "Units per layer and direction.")
@options.count("--layers", 2, "LSTM layers.")
@options.share("--dropout", 0.3, "Dropout probability between layers.")
@options.running(
    output="runs/spoken-digits",
    epochs=15,
    batch_size=32,
    lr=4e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def spoken_digits(
    ctx: click.Context, /, split: str, output: Path, quiet: bool, **more: Any
) -> None:  # fmt: skip
    """Spoken digits: 3,000 recordings of six speakers, 16 MB to download.

    A bidirectional LSTM on cepstra. Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn.tasks.spoken_digits import splits, train_spoken_digits

    train, test = splits(split)
    trainer, history, accuracy = train_spoken_digits(
        train, test, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    who = " of speakers not heard before" if split == "speaker" else ""
    measures = [("test accuracy", f"{100 * accuracy:.2f} % of {len(test)} recordings{who}")]
    options.conclude(ctx, trainer, history, options.write(trainer, history, output), measures)

"""`fastnn train speaker-id`."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli import recordings


@click.command("speaker-id")
@recordings.described(
    folder="Recordings of your own: a sub-folder for each speaker.",
    speed=False, epochs=10, output="runs/speaker-id",
)  # fmt: skip
@click.pass_context
def speaker_id(ctx: click.Context, /, **more: Any) -> None:
    """Who speaks, by a convolutional net on raw samples; by default the six of the spoken digits.

    `fastnn recognise` then names the speakers in files of your own. Set FASTNN_DATA to use a folder
    that has the data.
    """
    from fastnn.tasks import recordings as data

    recordings.run(ctx, data.speakers, " not heard before", speed=False, **more)

"""`fastnn train language-id`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from fastnn.cli import recordings


@click.command("language-id")
@click.option("--speaker", help="Regular expression for the speaker in a file's name.")
@recordings.described(
    folder="A sub-folder for each language, in it files such as speaker_1.wav or a folder for each "
    "speaker.",
    required=True, output="runs/language-id",
)  # fmt: skip
@click.pass_context
def language_id(ctx: click.Context, /, speaker: str | None, **more: Any) -> None:
    """Which language is spoken, by a convolutional net on raw samples of recordings in a folder.

    Speakers to test with are none of those it is trained on. `fastnn recognise` then names the
    languages of files of your own.
    """
    from fastnn.tasks import recordings as data

    splits = partial(data.languages, speaker=speaker)
    recordings.run(ctx, splits, " of speakers not heard before", **more)

"""`fastnn train speech-commands`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fastnn.cli import recordings


@click.command("speech-commands")
@click.option("--public", is_flag=True,
              help="The ten commands of Speech Commands: 2.4 GB to download.")  # fmt: skip
@click.option("--split", type=click.Choice(["official", "speaker"]), default="official",
              show_default=True,
              help="Spoken digits: test on other recordings of the same speakers, or on two "
              "unseen speakers.")  # fmt: skip
@click.option("--speaker", help="Folder: regular expression for the speaker in a file's name.")
@recordings.described(
    folder="Recordings of your own: a sub-folder for each word, in it files such as "
    "speaker_1.wav or a folder for each speaker.",
    output="runs/speech-commands",
)
@click.pass_context
def speech_commands(
    ctx: click.Context, /, public: bool, split: str, speaker: str | None, folder: Path | None,
    **more: Any,
) -> None:  # fmt: skip
    """Spoken words by a convolutional net on raw samples; by default the free spoken digits.

    Speakers to test with are none of those it is trained on, except with --split official of the
    digits. `fastnn recognise` then names the words in files of your own. Set FASTNN_DATA to use a
    folder that has the data.
    """
    from fastnn.tasks import recordings as data

    reading: dict[str, Any] = {} if folder is None else {"speaker": speaker}
    splits = partial(data.words, public=public, split=split, **reading)
    unseen = folder is not None or public or split == "speaker"
    who = " of speakers not heard before" if unseen else ""
    recordings.run(ctx, splits, who, folder=folder, **more)

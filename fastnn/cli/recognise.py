"""`fastnn recognise`: says what is to be heard in recordings."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--top", default=1, show_default=True, type=click.IntRange(1),
              help="How many classes to name, the most probable first.")  # fmt: skip
@click.option("--convert/--no-convert", default=True, show_default=True,
              help="Convert recordings at other sample rates, or refuse them.")  # fmt: skip
def recognise(checkpoint: Path, files: tuple[Path, ...], top: int, convert: bool) -> None:
    """Name the word, the speaker or the language in audio files, with probabilities.

    CHECKPOINT is what `fastnn train speech-commands`, `speaker-id` or `language-id` wrote: the file
    or its folder.
    """
    from fastnn.tasks.raw_audio import load_recogniser

    recogniser = load_recogniser(checkpoint)
    for path in files:
        found = recogniser.recognise(path, convert=convert)[:top]
        named = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in found)
        click.echo(f"{path}: {named}")

"""`fastnn transcribe`: writes down what is said in recordings."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--checkpoint", default="runs/asr", show_default=True,
              type=click.Path(path_type=Path),
              help="What `fastnn train asr` wrote: the checkpoint or its folder.")  # fmt: skip
@click.option("--convert/--no-convert", default=True, show_default=True,
              help="Convert recordings at other sample rates, or refuse them.")  # fmt: skip
@click.option("--words/--no-words", default=True, show_default=True,
              help="Use the word list and the language model, or not.")  # fmt: skip
def transcribe(files: tuple[Path, ...], checkpoint: Path, convert: bool, words: bool) -> None:
    """Write down what is said in audio files of one channel."""
    from fastnn.tasks.asr import load_speech_recogniser

    recogniser = load_speech_recogniser(checkpoint)
    for path in files:
        text = recogniser.transcribe(path, convert=convert, with_words=words)
        click.echo(text if len(files) == 1 else f"{path}: {text}")

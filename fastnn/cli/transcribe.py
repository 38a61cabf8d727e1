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
@click.option("--alignment", type=click.Path(dir_okay=False, path_type=Path),
              help="Picture of where in the first file the characters stand.")  # fmt: skip
def transcribe(files: tuple[Path, ...], checkpoint: Path, convert: bool, words: bool,
               alignment: Path | None) -> None:  # fmt: skip
    """Write down what is said in audio files of one channel."""
    from fastnn.tasks.asr import load_speech_recogniser
    from fastnn.tasks.speech_alignment import draw_alignment

    recogniser = load_speech_recogniser(checkpoint)
    if alignment is not None and recogniser.is_transducer:
        raise click.UsageError(
            "--alignment: expected with a model with CTC, whose classes stand for frames, got a "
            "transducer; leave it out"
        )
    for path in files:
        text = recogniser.transcribe(path, convert=convert, with_words=words)
        if alignment is not None and path == files[0]:
            frames = recogniser.frames(path, convert=convert)
            draw_alignment(recogniser, frames, text, alignment)
        click.echo(text if len(files) == 1 else f"{path}: {text}")

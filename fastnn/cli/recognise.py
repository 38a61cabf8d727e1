"""`fastnn recognise`: says what is to be heard in recordings."""

from __future__ import annotations

from pathlib import Path

import click

from fastnn.cli.ranges import Whole

#: the checkpoint that is meant where none is given
DEFAULT = Path("runs/speech-commands")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path),
              help="What `fastnn train speech-commands`, `speaker-id` or `language-id` wrote: the "
                   f"file or its folder.  [default: {DEFAULT}]")  # fmt: skip
@click.option("--top", default=1, show_default=True, type=Whole(1),
              help="How many classes to name, the most probable first.")  # fmt: skip
@click.option("--convert/--no-convert", default=True, show_default=True,
              help="Convert recordings at other sample rates, or refuse them.")  # fmt: skip
def recognise(files: tuple[Path, ...], checkpoint: Path | None, top: int, convert: bool) -> None:
    """Name the word, the speaker or the language in audio FILES, with probabilities.

    The checkpoint may also come before the files, without its option.
    """
    from fastnn.tasks.raw_audio import load_recogniser

    if checkpoint is None and _is_checkpoint(files[0]):
        checkpoint, files = files[0], files[1:]
        if not files:
            raise click.UsageError(
                f"FILES: expected audio files after the checkpoint {checkpoint}, got none"
            )
    recogniser = load_recogniser(checkpoint or DEFAULT)
    for path in files:
        found = recogniser.recognise(path, convert=convert)[:top]
        named = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in found)
        click.echo(f"{path}: {named}")


def _is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a checkpoint or its folder, or where there is nothing, looks like
    one, and not like an audio file."""
    if path.is_dir() or path.suffix == ".safetensors":
        return True
    return path.with_suffix(".json").is_file() or not (path.suffix or path.exists())

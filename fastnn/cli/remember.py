"""`fastnn remember`: what a trained net with a memory writes of sequences of bits."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--checkpoint", default="runs/copy", show_default=True,
              type=click.Path(path_type=Path),
              help="What `fastnn train copy`, `recall` or `sort` wrote: the file or its "
                   "folder.")  # fmt: skip
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path),
              help="Picture of where the heads read and write in the first sequence.")  # fmt: skip
def remember(files: tuple[Path, ...], checkpoint: Path, picture: Path | None) -> None:
    """Copy, recall or sort the bits in FILES, or in the standard input, a sequence a line.

    A word is a vector of bits: `01101001 11100010` to copy (8 bits each), with a priority from -1
    to 1 to sort, the highest first: `01101001:0.35 11100010:-0.2`. To recall, items of three
    vectors of 6 bits have | between them; last stands one of the items again, and the net writes
    the one that followed it. Sequences may be longer than those it was trained on.
    """
    from fastnn.files import lines_of, read_input, read_text
    from fastnn.tasks import bits
    from fastnn.tasks.memory import draw_sequence, load_memory, padded

    model = load_memory(checkpoint)
    texts = [(str(path), read_text(path, "text")) for path in files]
    sequences = [
        sequence
        for name, text in texts or [("the standard input", read_input())]
        for sequence in bits.read_sequences(model.task, lines_of(text), name)
    ]
    if picture is not None:
        draw_sequence(model, padded(sequences[:1]), picture)
    for written in bits.remember(model, sequences):
        click.echo(bits.line_of(written))

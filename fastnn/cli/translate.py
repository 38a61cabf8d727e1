"""`fastnn translate`: translates sentences with a trained model."""

from __future__ import annotations

from pathlib import Path

import click

from fastnn.cli.ranges import Number, Whole


@click.command()
@click.argument("sentences", nargs=-1)
@click.option("--checkpoint", default="runs/translate", show_default=True,
              type=click.Path(path_type=Path),
              help="What `fastnn train translate` wrote: the file or its folder.")  # fmt: skip
@click.option("--width", default=5, show_default=True, type=Whole(1, 1000),
              help="Hypotheses that beam search keeps.")  # fmt: skip
@click.option("--length-penalty", default=0.6, show_default=True, type=Number(0, 10),
              help="Above 0, longer translations win more often.")  # fmt: skip
@click.option("--alignment", type=click.Path(dir_okay=False, path_type=Path),
              help="Picture of the attention weights for the first sentence.")  # fmt: skip
def translate(sentences: tuple[str, ...], checkpoint: Path, width: int, length_penalty: float,
              alignment: Path | None) -> None:  # fmt: skip
    """Translate SENTENCES, or lines of the standard input, with a trained model.

    The checkpoint's description holds the model's subwords and settings.
    """
    from fastnn import plot
    from fastnn.files import lines_of, read_input
    from fastnn.tasks.translate import load_translator

    translator = load_translator(checkpoint)
    lines = list(sentences) or lines_of(read_input())
    found = translator(lines, width=width, length_penalty=length_penalty)
    if alignment is not None and found:
        weights = translator.alignment(found[0])
        plot.alignment(weights, found[0].source, [*found[0].target, "</s>"], path=alignment)
    for one in found:
        click.echo(one.text)

"""`fastnn tag`: marks names in text."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--checkpoint", default="runs/ner", show_default=True,
              type=click.Path(path_type=Path),
              help="What `fastnn train ner` wrote: the file or its folder.")  # fmt: skip
@click.option("--columns", is_flag=True, help="One word and its tag per line, as in CoNLL's files.")
@click.option("--spaces", is_flag=True,
              help="Split words at spaces only, and not before punctuation.")  # fmt: skip
def tag(files: tuple[Path, ...], checkpoint: Path, columns: bool, spaces: bool) -> None:
    """Mark the names in FILES, or in the standard input, a sentence a line. Empty lines stay.

    The checkpoint carries the symbols and settings of the model.
    """
    from fastnn.files import lines_of, read_input, read_text
    from fastnn.tasks.ner import load_tagger
    from fastnn.tasks.tagger import marked, predict_tags, words_of

    model, encoder = load_tagger(checkpoint)
    texts = [read_text(path, "text") for path in files] if files else [read_input()]
    lines = [line for text in texts for line in lines_of(text)]
    sentences = [line.split() if spaces else words_of(line) for line in lines]
    full = [words for words in sentences if words]
    found = iter(predict_tags(model, encoder, full) if full else [])
    for words in sentences:
        tags = next(found) if words else []
        if columns and not words:  # an empty line ends a sentence
            continue
        if columns:
            rows = zip(words, tags, strict=True)
            click.echo("\n".join(f"{word} {name}" for word, name in rows) + "\n")
        else:
            click.echo(marked(words, tags))

"""`fastnn train ner`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options


@click.command("ner")
@options.own_folder("train.txt, valid.txt and test.txt, a word and its tag a line, an empty line "
                    "after a sentence")  # fmt: skip
@options.count("--embedding", 100, "Size of a word embedding.")
@options.count("--hidden", 160, "Units per direction.")
@options.share("--dropout", 0.5, "Dropout probability of a word's features and of units.")
@options.running(
    output="runs/ner",
    epochs=8,
    batch_size=16,
    lr=3e-3,
    rate="Initial learning rate; it decays linearly to 0.",
    batch="Sentences per step.",
)
@click.pass_context
def ner(ctx: click.Context, /, folder: Path | None, output: Path, quiet: bool, **more: Any) -> None:
    """Names in news: CoNLL-2003, 4.9 MB to download.

    A bidirectional LSTM over words and their characters with a conditional random field, without
    pre-trained vectors. `fastnn tag` uses it. Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn.data.conll2003 import load_conll2003
    from fastnn.tasks.ner import save_description, train_ner
    from fastnn.tasks.tag_pictures import draw_transitions, draw_types
    from fastnn.tasks.tagger import Tagger, predict_tags

    data = load_conll2003(scheme="IOBES", folder=folder)
    trainer, history, scores, encoder = train_ner(
        data,
        verbose=not quiet,
        callbacks=[options.KeepCheckpoint(output)],
        **more,
    )
    written = options.write(trainer, history, output)
    path = save_description(trainer.model, encoder, written[0][1])
    written.insert(1, ("description", path))
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    model, test = trainer.model, data.test
    assert isinstance(model, Tagger)
    transitions, types = output / "transitions.png", output / "types.png"
    if options.drawn(lambda: draw_transitions(model.crf, transitions)):
        found = predict_tags(model, encoder, test.words)
        draw_types(test.tags, found, types)
        written += [("transitions", transitions), ("types", types)]
    measures = [
        (f"{name} F1", f"{100 * scores[part].f1:.2f} % of {scores[part].expected} entities")
        for name, part in (("validation", "valid"), ("test", "test"))
    ]
    options.conclude(ctx, trainer, history, written, measures)
    click.echo(str(scores["test"]))

"""`fastnn train translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options


@click.command("translate")
@options.own_folder("train.en, train.de, valid.en, ..., test.de, a sentence a line, or packed with "
                    "gzip, train.en.gz")  # fmt: skip
@click.option("--source", default="en", show_default=True,
              help="Language: en, de or fr; with --folder any, as the files' names end.",
)  # fmt: skip
@click.option("--target", default="de", show_default=True, help="The other language.")
@click.option("--model", default="gru", show_default=True,
              type=click.Choice(["gru", "transformer"]), help="Kind of model.")  # fmt: skip
@options.count("--size", 256, "Size of vectors, units and steps.")
@options.count("--layers", 3, "Layers of the Transformer's encoder and decoder.")
@click.option("--attention/--no-attention", default=True, show_default=True,
              help="Whether the decoder of the GRU attends to the sentence.")  # fmt: skip
@options.count("--merges", 6000, "Subwords to learn (merges of byte-pair encoding).")
@click.option("--subwords", default="own", show_default=True,
              type=click.Choice(["own", "tokenizers", "auto"]),
              help="What learns them: our code, or the library tokenizers, which is quicker; auto "
                   "takes it where it is installed.")  # fmt: skip
@options.share("--dropout", 0.3, "Dropout probability.")
@click.option("--precision", default="highest", show_default=True,
              help="Of matrix products: highest, high, medium, bf16 or fp16.")  # fmt: skip
@options.running(
    output="runs/translate",
    epochs=10,
    batch_size=64,
    lr=1e-3,
    rate="Highest learning rate; it rises at first and decays linearly to 0.",
    batch="Pairs of sentences per step.",
)
@click.pass_context
def translate(ctx: click.Context, /, folder: Path | None, output: Path, quiet: bool, source: str,
              target: str, **more: Any) -> None:  # fmt: skip
    """Translation: descriptions of pictures (Multi30k), 2 MB to download.

    A recurrent net with attention, or a Transformer, over subwords. `fastnn translate` uses
    the trained model. Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn import plot
    from fastnn.data.multi30k import load_multi30k
    from fastnn.tasks.translate import save_description, train_translator

    data = load_multi30k(source, target, folder=folder)
    trainer, history, translator, scores = train_translator(
        data, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    written = options.write(trainer, history, output)
    path = save_description(translator, data, written[0][1])
    written.insert(1, ("description", path))
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    if more["model"] == "gru" and more["attention"]:
        picture = output / "alignment.png"
        one = translator(data.test[0][:1])[0]
        if options.drawn(
            lambda: plot.alignment(
                translator.alignment(one), one.source, [*one.target, "</s>"], path=picture
            )
        ):
            written.append(("alignment", picture))
    measures = [
        (f"{name} BLEU", f"{scores[part]:.2f} of {len(sentences)} sentences, lower-cased")
        for name, part, sentences in (
            ("validation", "valid", data.valid[0]), ("test", "test", data.test[0]),
        )
    ]  # fmt: skip
    options.conclude(ctx, trainer, history, written, measures)

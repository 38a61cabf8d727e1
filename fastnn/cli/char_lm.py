"""`fastnn train char-lm`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from fastnn.cli import options
from fastnn.cli.ranges import Number


@click.command("char-lm")
@options.own_folder("input.txt, any text")
@options.count("--embedding", 64, "Size of a character embedding.")
@options.count("--hidden", 256, "Units per layer.")
@options.count("--layers", 2, "LSTM layers.")
@options.share("--dropout", 0.1, "Dropout probability between layers.")
@options.language_model
@options.count("--steps", 32, "Characters to backpropagate through.")
@click.option("--dynamic", default=0.0, show_default=True, type=Number(0),
              help="Measure with dynamic evaluation as well, at this rate.")  # fmt: skip
@options.running(
    output="runs/char-lm",
    epochs=7,
    batch_size=32,
    lr=4e-3,
    rate="Initial learning rate; it decays linearly to 0.",
    batch="Streams of text read in parallel.",
)
@click.pass_context
def char_lm(
    ctx: click.Context, /, folder: Path | None, output: Path, quiet: bool, dynamic: float,
    ngram: int, **more: Any,
) -> None:  # fmt: skip
    """Text character by character: Shakespeare's plays, 1.1 MB to download.

    The first nine tenths are for training, the rest for validation. `fastnn sample` generates
    text with the trained model. Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn.data.shakespeare import load_shakespeare
    from fastnn.tasks.char_lm import bits as in_bits
    from fastnn.tasks.char_lm import train_char_lm
    from fastnn.tasks.dynamic import dynamic_loss
    from fastnn.tasks.language import save_description
    from fastnn.tasks.mixture import NGramBeside, mixed_loss

    options.check_net(ctx)
    text = load_shakespeare(folder=folder)
    trainer, history, bits = train_char_lm(
        text, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    written = options.write(trainer, history, output)
    path = save_description(trainer.model, text.vocabulary, written[0][1], "character")
    written.insert(1, ("description", path))
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    measures = [("validation", f"{bits:.3f} bits per character of {len(text.valid)}")]
    model = cast(Any, trainer.model)
    if ngram:
        beside = NGramBeside.train(text.train, text.vocabulary, ngram)
        mixed = in_bits(mixed_loss(model, text.valid, beside))
        measures.append(("mixed", f"{mixed:.3f}, with {ngram}-grams of the training text"))
    if dynamic:
        learned = in_bits(dynamic_loss(model, text.valid, lr=dynamic, workers=more["workers"]))
        measures.append(("dynamic", f"{learned:.3f}, learning while it reads"))
    options.conclude(ctx, trainer, history, written, measures)

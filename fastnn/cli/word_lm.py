"""`fastnn train word-lm`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import click

from fastnn.cli import options
from fastnn.cli.ranges import Number, Whole


@click.command("word-lm")
@options.own_folder("ptb.train.txt, ptb.valid.txt and ptb.test.txt, words between spaces")
@options.count("--embedding", 200, "Size of a word embedding.")
@options.count("--hidden", 200, "Units per layer.")
@options.count("--layers", 1, "LSTM layers.")
@options.share("--dropout", 0.3, "Dropout probability.")
@options.language_model
@options.count("--steps", 20, "Words to backpropagate through.")
@click.option("--sampled", default=0, show_default=True, type=Whole(0),
              help="Estimate the softmax in training from so many words; 0 takes all.")  # fmt: skip
@click.option("--full-softmax", default=0, show_default=True, type=Whole(0),
              help="With --sampled: of the last so many epochs, take all words.")  # fmt: skip
@click.option("--augmented", default=0.0, show_default=True, type=Number(0),
              help="With --sampled, --tied: how much words that are like the next one count.",
)  # fmt: skip
@click.option("--cache", default=0, show_default=True, type=Whole(0),
              help="Measure with a cache of so many words as well; 0 does not.")  # fmt: skip
@options.running(
    output="runs/word-lm",
    epochs=4,
    batch_size=20,
    lr=3e-3,
    rate="Initial learning rate; it decays linearly to 0.",
    batch="Streams of text read in parallel.",
)
@click.pass_context
def word_lm(
    ctx: click.Context, /, folder: Path | None, output: Path, quiet: bool, cache: int, ngram: int,
    **more: Any,
) -> None:  # fmt: skip
    """Text word by word: Penn Treebank, 6 MB to download.

    `fastnn sample` generates text with the trained model. Set FASTNN_DATA to use a folder that has
    the data.
    """
    from fastnn.data.ptb import load_ptb
    from fastnn.tasks.cache import NeuralCache
    from fastnn.tasks.language import save_description
    from fastnn.tasks.mixture import Beside, NGramBeside, mixed_loss
    from fastnn.tasks.surprise import draw_surprise
    from fastnn.tasks.word_lm import train_word_lm

    options.check_net(ctx)
    words = load_ptb(folder=folder)
    trainer, history, (valid, test) = train_word_lm(
        words, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    written = options.write(trainer, history, output)
    path = save_description(trainer.model, words.vocabulary, written[0][1], "word")
    written.insert(1, ("description", path))
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    picture, model = output / "surprise.png", cast(Any, trainer.model)
    if options.drawn(
        lambda: draw_surprise(model, words.vocabulary, words.train, words.valid, picture)
    ):
        written.append(("surprise", picture))
    measures = [
        ("validation", f"perplexity {valid:.1f} of {len(words.valid)} words"),
        ("test", f"perplexity {test:.1f} of {len(words.test)} words"),
    ]
    beside: list[tuple[str, Beside]] = []
    if cache:
        beside.append((f"with a cache of {cache} words", NeuralCache(cache)))
    if ngram:
        counted = NGramBeside.train(words.train, words.vocabulary, ngram)
        beside.append((f"with {ngram}-grams", counted))
    mixtures = [[one] for one in beside] + ([beside] if len(beside) > 1 else [])
    for mixture in mixtures:
        added = [other for _, other in mixture]
        for name, part in (("validation", words.valid), ("test", words.test)):
            perplexity = math.exp(mixed_loss(model, part, *added))
            what = " and ".join(what for what, _ in mixture)
            measures.append((f"{name} mixed", f"perplexity {perplexity:.1f}, {what}"))
    options.conclude(ctx, trainer, history, written, measures)

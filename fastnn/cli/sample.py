"""`fastnn sample`: writes text with a trained language model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), default="runs/char-lm")
@click.option(
    "--length",
    default=500,
    show_default=True,
    type=click.IntRange(0),
    help="Number of symbols (characters or words) to generate.",
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0),
    help="Below 1, likely symbols become likelier; at 0, always the likeliest.",
)
@click.option("--prime", default="", help="Text to start from.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0),
              help="Seed of the random numbers.")  # fmt: skip
def sample(checkpoint: Path, length: int, temperature: float, prime: str, seed: int) -> None:
    """Write text with a language model.

    CHECKPOINT is what `fastnn train char-lm` or `word-lm` wrote: the file or its folder.
    """
    from fastnn.tasks.language import load_language_model, write_text

    model, vocabulary, unit = load_language_model(checkpoint)
    click.echo(
        write_text(
            model, vocabulary, length, unit=unit, prime=prime, temperature=temperature, seed=seed
        )
    )

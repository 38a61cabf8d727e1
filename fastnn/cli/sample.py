"""`fastnn sample`: makes text or images with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

#: options that only text has, and only images have
TEXT, IMAGES = ("length", "temperature", "prime"), ("count", "walk", "output")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), default="runs/char-lm")
@click.option(
    "--length",
    default=500,
    show_default=True,
    type=click.IntRange(0),
    help="Text: number of symbols (characters or words) to generate.",
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0),
    help="Text: below 1, likely symbols become likelier; at 0, always the likeliest.",
)
@click.option("--prime", default="", help="Text to start from.")
@click.option("--count", default=100, show_default=True, type=click.IntRange(1),
              help="Images: how many.")  # fmt: skip
@click.option("--walk", is_flag=True,
              help="Images: in each row, a walk from one code to another.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="samples.png",
              show_default=True, help="Images: the picture's file.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0),
              help="Seed of the random numbers.")  # fmt: skip
@click.pass_context
def sample(ctx: click.Context, /, checkpoint: Path, seed: int, **given: Any) -> None:
    """Write text with a language model, or draw images with a model of images.

    CHECKPOINT is what `fastnn train char-lm`, `word-lm`, `vae` or `gan` wrote: the file or its
    folder.
    """
    from fastnn.tasks import description

    with description.read(checkpoint, "a model that makes samples", "fastnn train ...") as (
        _,
        state,
    ):
        images = "kind" in state
    for name in TEXT if images else IMAGES:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name}: expected with a model of {'text' if images else 'images'} only; "
                f"{checkpoint} is one of {'images' if images else 'text'}"
            )
    if images:
        _draw(checkpoint, seed, **{name: given[name] for name in IMAGES})
    else:
        _write(checkpoint, seed, **{name: given[name] for name in TEXT})


def _write(checkpoint: Path, seed: int, length: int, temperature: float, prime: str) -> None:
    from fastnn.tasks.language import load_language_model, write_text

    model, vocabulary, unit = load_language_model(checkpoint)
    click.echo(
        write_text(
            model, vocabulary, length, unit=unit, prime=prime, temperature=temperature, seed=seed
        )
    )


def _draw(checkpoint: Path, seed: int, count: int, walk: bool, output: Path) -> None:
    from fastnn import plot
    from fastnn.tasks.images import drawn_samples, load_image_model

    model, shape = load_image_model(checkpoint)
    plot.samples(drawn_samples(model, count, seed, walk), shape, path=output)
    click.echo(f"{'samples':<15} {output}")

"""`fastnn sample`: makes text, images or sound with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli.ranges import Number, Whole

#: the checkpoint that is meant where none is given
DEFAULT = Path("runs/char-lm")
#: the options of each kind of model
OPTIONS = {
    "text": ("length", "temperature", "prime", "precision"),
    "images": ("count", "walk", "truncation", "output"),
    "sound": ("digit", "seconds", "temperature", "output"),
}
#: what models of the kinds of `description` make
SAMPLES = {"language": "text", "images": "images", "wavenet": "sound"}
#: what stands for options that are not given
DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"temperature": 0.8},
    "images": {"output": Path("samples.png")},
    "sound": {"temperature": 1.0, "output": Path("sample.wav")},
}


@click.command()
@click.argument("place", metavar="[CHECKPOINT]", required=False, type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path),
              help="The same as the argument, as other commands have it.  [default: runs/char-lm]",
)  # fmt: skip
@click.option(
    "--length",
    default=500,
    show_default=True,
    type=Whole(0),
    help="Text: number of symbols (characters or words) to generate.",
)
@click.option(
    "--temperature",
    type=Number(0),
    help="Text and sound: below 1, probable symbols become more probable; 0: always the most "
    "probable.  "
    "[default: 0.8 for text, 1 for sound]",
)
@click.option("--prime", default="", help="Text to start from.")
@click.option("--precision", default="highest", show_default=True,
              type=click.Choice(["highest", "high", "medium", "bf16", "fp16"]),
              help="Text: of products; bf16 halves what an LSTM reads for a symbol.")  # fmt: skip
@click.option("--count", default=100, show_default=True, type=Whole(1),
              help="Images: how many.")  # fmt: skip
@click.option("--walk", is_flag=True,
              help="Images: in each row, a walk from one code to another.")  # fmt: skip
@click.option("--truncation", type=Number(0.1),
              help="Images of a GAN: redraw noise beyond this value.")  # fmt: skip
@click.option("--digit", default=0, show_default=True, type=Whole(0, 9),
              help="Sound: the digit to say.")  # fmt: skip
@click.option("--seconds", default=0.6, show_default=True, type=Number(0.001),
              help="Sound: how long it is.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Images and sound: the file.  [default: samples.png, sample.wav]")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=Whole(0),
              help="Seed of the random numbers.")  # fmt: skip
@click.pass_context
def sample(
    ctx: click.Context, /, place: Path | None, checkpoint: Path | None, seed: int, **given: Any
) -> None:
    """Write text with a language model, draw images, or say a digit.

    CHECKPOINT is what `fastnn train char-lm`, `word-lm`, `vae`, `gan` or `wavenet` wrote: the file
    or its folder; by default runs/char-lm.
    """
    from fastnn.tasks import description

    if place is not None and checkpoint is not None:
        raise click.UsageError(
            f"expected one checkpoint, got {str(place)!r} and --checkpoint {str(checkpoint)!r}; "
            "leave one out"
        )
    checkpoint = place or checkpoint or DEFAULT
    with description.read(checkpoint, "language", "images", "wavenet") as (_, state):
        kind = SAMPLES.get(description.kind_of(state) or "", "text")
    for name, value in given.items():
        mine = name in OPTIONS[kind]
        if not mine and ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            others = " or ".join(k for k, names in OPTIONS.items() if name in names)
            raise click.UsageError(
                f"--{name} is for models of {others} only; {checkpoint} is one of {kind}"
            )
        if mine and value is None and name in DEFAULTS[kind]:
            given[name] = DEFAULTS[kind][name]
    make: Any = {"text": _write, "images": _draw, "sound": _say}[kind]
    make(checkpoint, seed, **{name: given[name] for name in OPTIONS[kind]})


def _write(
    checkpoint: Path, seed: int, length: int, temperature: float, prime: str, precision: str
) -> None:
    from fastnn.tasks.language import load_language_model
    from fastnn.tasks.sampling import write_text

    model, vocabulary, unit = load_language_model(checkpoint)
    click.echo(
        write_text(
            model,
            vocabulary,
            length,
            unit=unit,
            prime=prime,
            temperature=temperature,
            seed=seed,
            precision=precision,
        )
    )


def _draw(
    checkpoint: Path, seed: int, count: int, walk: bool, truncation: float | None, output: Path
) -> None:
    from fastnn import plot
    from fastnn.tasks.images import drawn_samples, load_image_model

    model, shape = load_image_model(checkpoint)
    plot.samples(drawn_samples(model, count, seed, walk, truncation), shape, path=output)
    click.echo(f"{'samples':<15} {output}")


def _say(
    checkpoint: Path, seed: int, digit: int, seconds: float, temperature: float, output: Path
) -> None:
    from fastnn.tasks.wavenet import load_wavenet, spoken, write_sound

    net = load_wavenet(checkpoint)
    (waveform,) = spoken(net, [digit], seconds, temperature=temperature, seed=seed)
    write_sound(waveform, output)
    click.echo(f"{'sound':<15} {output}")

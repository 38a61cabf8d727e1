"""`fastnn train gan`."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli import images, options
from fastnn.cli.ranges import Number, Whole

#: their defaults, of convolutional nets
CLUSTERS = 200
UNITS = {"discriminator_units": 256, "generator_units": 512}


@click.command()
@images.described(hidden="512,256", latent=64, channels="16,32")
@click.option("--discriminator-units", type=Whole(0),
              help="Units of a linear layer after the convolutions; 0: none.  "
              "[default: 256]")  # fmt: skip
@click.option("--generator-units", type=Whole(0),
              help="Units of a linear layer before the convolutions; 0: none.  "
              "[default: 512]")  # fmt: skip
@click.option(
    "--generator-lr",
    type=Number(0, min_open=True),
    help="The generator's learning rate.  [default: 3 times --lr with --channels, else --lr]",
)
@click.option(
    "--loss", default="non_saturating", show_default=True,
    type=click.Choice(["non_saturating", "least_squares", "wasserstein", "hinge"]),
    help="The losses of the two players.",
)  # fmt: skip
@click.option("--penalty", type=click.Choice(["none", "gradient", "r1"]), default="none",
              show_default=True, help="Penalty on the discriminator's gradient.")  # fmt: skip
@click.option("--penalty-weight", type=Number(0),
              help="Factor of the penalty; 10 if not given.")  # fmt: skip
@options.share("--smoothing", 0.0, "Smoothing of the label of real images.")
@click.option("--conditional", is_flag=True,
              help="Tell both players the digit; sample each digit in turn.")  # fmt: skip
@click.option("--clusters", type=Whole(0),
              help="Find so many clusters of images without labels, and tell both players which "
              "one; 0: none.  [default: 200 for MNIST with --channels and without "
              "--conditional, else 0]")  # fmt: skip
@click.option("--average", type=Number(0, 1, max_open=True),
              help="Decay of the average of the parameters, which makes the samples; 0: the "
              "parameters themselves do.  [default: 0.999, less for fewer than 10,000 "
              "steps]")  # fmt: skip
@click.option("--truncation", type=Number(0.1),
              help="Also judge samples from noise truncated at this value.")  # fmt: skip
@options.running(
    output="runs/gan",
    epochs=14,
    batch_size=64,
    lr=3e-4,
    rate="Initial learning rate of the discriminator; both decay to 0 along a cosine.",
)
@click.pass_context
def gan(
    ctx: click.Context, /, loss: str, penalty: str, penalty_weight: float | None, smoothing: float,
    conditional: bool, discriminator_units: int | None, generator_units: int | None,
    generator_lr: float | None, clusters: int | None, **more: Any,
) -> None:  # fmt: skip
    """A generative adversarial net of handwritten digits.

    A classifier of real digits says which ones it makes. Set FASTNN_DATA to use a folder that has
    MNIST.
    """
    own: dict[str, Any] = dict(loss=loss, smoothing=smoothing)
    if conditional:
        if clusters:
            raise click.UsageError(
                "--clusters: expected without --conditional, whose classes are the digits"
            )
        own["classes"] = 10
    elif clusters is None:
        clusters = CLUSTERS if more["channels"] and more["data"] == "mnist" else 0
    if penalty != "none" or penalty_weight is not None:
        own |= dict(penalty=None if penalty == "none" else penalty, penalty_weight=penalty_weight)
    units = {"discriminator_units": discriminator_units, "generator_units": generator_units}
    if more["channels"]:
        own |= {name: UNITS[name] if n is None else n for name, n in units.items()}
        generator_lr = 3 * more["lr"] if generator_lr is None else generator_lr
    elif any(units.values()):
        raise click.UsageError(
            "--discriminator-units and --generator-units: expected with --channels only; without "
            "convolutions set the layers by --hidden"
        )
    images.run(ctx, "gan", own=own, generator_lr=generator_lr, clusters=clusters or 0, **more)

"""`fastnn train gan`."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli import images, options


@click.command()
@images.described(hidden="512,256", latent=64)
@click.option(
    "--loss", default="non_saturating", show_default=True,
    type=click.Choice(["non_saturating", "least_squares", "wasserstein", "hinge"]),
    help="What the players play for.",
)  # fmt: skip
@click.option("--penalty", type=click.Choice(["none", "gradient", "r1"]), default="none",
              show_default=True, help="Penalty of the discriminator's slope.")  # fmt: skip
@click.option("--penalty-weight", type=click.FloatRange(0),
              help="Factor of the penalty; 10 where none is given.")  # fmt: skip
@options.share("--smoothing", 0.0, "Of the label of real images.")
@click.option("--truncation", type=click.FloatRange(0.1),
              help="Judge samples of noise within this, too.")  # fmt: skip
@options.running(
    output="runs/gan",
    epochs=40,
    batch_size=100,
    lr=4e-4,
    rate="Initial learning rate of both players; it decays to 0 along a cosine.",
)
@click.pass_context
def gan(
    ctx: click.Context, /, loss: str, penalty: str, penalty_weight: float | None, smoothing: float,
    **more: Any,
) -> None:  # fmt: skip
    """A generative adversarial net of handwritten digits.

    A classifier of real digits says which ones it makes. Set FASTNN_DATA to use a folder that has
    MNIST.
    """
    own: dict[str, Any] = dict(loss=loss, smoothing=smoothing)
    if penalty != "none" or penalty_weight is not None:
        own |= dict(penalty=None if penalty == "none" else penalty, penalty_weight=penalty_weight)
    images.run(ctx, "gan", own=own, **more)

"""`fastnn train vae`."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli import images, options
from fastnn.cli.ranges import Number


@click.command()
@images.described(hidden="400", latent=20)
@click.option("--beta", default=1.0, show_default=True, type=Number(0),
              help="Factor of the divergence.")  # fmt: skip
@click.option("--free-bits", default=0.0, show_default=True, type=Number(0),
              help="Nats that each number of the code may cost.")  # fmt: skip
@options.count("--draws", 1, "Codes drawn of each image: more train the importance-weighted bound.")
@options.running(
    output="runs/vae",
    epochs=20,
    batch_size=100,
    lr=1e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def vae(ctx: click.Context, /, beta: float, free_bits: float, draws: int, **more: Any) -> None:
    """A variational autoencoder of handwritten digits.

    With --latent 2 a picture of all codes is drawn. Set FASTNN_DATA to use a folder that has MNIST.
    """
    own = dict(beta=beta, free_bits=free_bits, draws=draws)
    images.run(ctx, "vae", own=own, **more)

"""`fastnn train autoencoder`."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli import images, options
from fastnn.cli.ranges import Number


@click.command()
@images.described(hidden="512,256", latent=30)
@options.share("--corruption", 0.0, "Share of the pixels that are set to 0 before encoding.")
@click.option("--sparsity", default=0.0, show_default=True, type=Number(0),
              help="Factor of the code's L1 norm.")  # fmt: skip
@click.option("--contraction", default=0.0, show_default=True, type=Number(0),
              help="Factor of the squared norm of the code's Jacobian.")  # fmt: skip
@options.running(
    output="runs/autoencoder",
    epochs=20,
    batch_size=100,
    lr=1e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def autoencoder(
    ctx: click.Context, /, corruption: float, sparsity: float, contraction: float, **more: Any
) -> None:
    """An autoencoder of handwritten digits, beside principal components.

    Set FASTNN_DATA to use a folder that has MNIST.
    """
    own = dict(corruption=corruption, sparsity=sparsity, contraction=contraction)
    images.run(ctx, "autoencoder", own=own, **more)

"""`fastnn train mnist-cnn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options


@click.command("mnist-cnn")
@click.option("--channels", default="16,32", show_default=True, callback=options.check_sizes,
              help="Channels of the two convolutions.")  # fmt: skip
@options.count("--units", 128, "Units of the hidden linear layer.")
@options.share("--dropout", 0.4, "Dropout probability; half of it before the first linear layer.")
@options.running(
    output="runs/mnist-cnn",
    epochs=6,
    batch_size=64,
    lr=2e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def mnist_cnn(
    ctx: click.Context, /, channels: tuple[int, ...], output: Path, quiet: bool, **more: Any
) -> None:
    """MNIST: 70,000 handwritten digits, by a small convolutional net.

    Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn.errors import OptionError
    from fastnn.tasks.images import load_images
    from fastnn.tasks.mnist_cnn import train_mnist_cnn

    if len(channels) != 2:
        raise OptionError(
            f"--channels: expected two numbers, one for each convolution, got {channels}"
        )
    images = load_images("mnist")
    trainer, history, accuracy = train_mnist_cnn(
        images, channels=(channels[0], channels[1]), verbose=not quiet,
        callbacks=[options.KeepCheckpoint(output)], **more,
    )  # fmt: skip
    measures = [("test accuracy", f"{100 * accuracy:.2f} % of {len(images.test):,} images")]
    options.conclude(ctx, trainer, history, options.write(trainer, history, output), measures)

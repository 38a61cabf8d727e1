"""MNIST by a small convolutional net, after LeNet-5 (LeCun et al. 1998)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnn import nn
from fastnn.errors import OptionError, check_whole
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import training
from fastnn.tasks.images import Images
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

CLASSES = 10


def lenet(
    shape: tuple[int, int] = (28, 28), channels: tuple[int, int] = (16, 32), units: int = 128,
    dropout: float = 0.4,
) -> nn.Sequential:  # fmt: skip
    """Two convolutions of 5×5, each with ReLU and the maxima of 2×2, and two linear layers.

    LeNet-5 has 6 and 16 channels, 120 and 84 units, tanh and averages instead.

    Args:
        shape: height and width of the images, which have one channel: input (N, 1, height, width).
        channels: of the two convolutions.
        units: of the hidden linear layer.
        dropout: probability of zero before each linear layer; half of it before the first.

    Returns:
        A model whose output are logits, shape (N, 10).
    """
    check_whole("lenet", 1, first=channels[0], second=channels[1], units=units)
    if min(shape) < 12:
        raise OptionError(
            f"lenet: expected images of at least 12×12 pixels, got {shape}; a second window of 5×5 "
            "needs them"
        )
    rows, columns = ((n // 2 - 4) // 2 for n in shape)
    return nn.Sequential(
        nn.Conv2d(1, channels[0], 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels[0], channels[1], 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(dropout / 2), nn.Linear(channels[1] * rows * columns, units), nn.ReLU(),
        nn.Dropout(dropout), nn.Linear(units, CLASSES),
    )  # fmt: skip


def as_planes(rows: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Images as rows of pixels as (N, 1, height, width)."""
    return rows.reshape(len(rows), 1, *shape)


def train_mnist_cnn(
    images: Images,
    *,
    channels: tuple[int, int] = (16, 32),
    units: int = 128,
    dropout: float = 0.4,
    batch_size: int = 64,
    epochs: int = 6,
    lr: float = 2e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History, float]:
    """Train and test; Adam's learning rate falls to 0 along a cosine.

    Args:
        images: as of `fastnn.tasks.images.load_images`.
        channels, units, dropout: as of `lenet`.
        batch_size, epochs, lr, callbacks, seed, device, workers, resume, verbose: as of `Trainer`
            and its `fit`.

    Returns:
        The trainer, the history (with the accuracy on the test images after each epoch), and the
        accuracy at the end.
    """
    model = lenet(images.shape, channels, units, dropout)
    x, test = (as_planes(rows, images.shape) for rows in (images.train, images.test))
    trainer, history = training.train(
        model, "cross_entropy", x, images.train_labels,
        schedule=CosineAnnealing(-(-len(x) // batch_size) * epochs), lr=lr, clip=None,
        metrics=["accuracy"], validation=(test, images.test_labels), batch_size=batch_size,
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    return trainer, history, float(trainer.evaluate(test, images.test_labels)["accuracy"])

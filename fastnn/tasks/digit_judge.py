"""A classifier of real digits, which says what digits a model makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, optim
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import training
from fastnn.tasks.images import Images
from fastnn.tasks.mnist_cnn import CLASSES, lenet
from fastnn.train.trainer import Trainer


def train_judge(images: Images, *, epochs: int = 4, seed: int = 0, **options: Any) -> nn.Module:
    """A classifier of images as rows of pixels: LeNet, or two linear layers for small images.

    Args:
        images: what it learns from.
        epochs: how often it sees the images.
        seed: of its weights.
        options: of `Trainer`.
    """
    pixels = images.train.shape[1]
    if min(images.shape) >= 12:
        judge = nn.Sequential(nn.Reshape(1, *images.shape), lenet(images.shape))
    else:
        judge = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(pixels, 256), nn.ReLU(), nn.Dropout(0.4),
            nn.Linear(256, CLASSES),
        )  # fmt: skip
    adam = optim.Adam(lr=2e-3, schedule=CosineAnnealing(-(-len(images.train) // 64) * epochs))
    trainer = Trainer(judge, "cross_entropy", adam, seed=seed, **options)
    training.whole(
        trainer.fit(images.train, images.train_labels, epochs=epochs, batch_size=64, verbose=False)
    )
    return judge


def judged(judge: nn.Module, made: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """The share of images that a classifier recognises with a probability of 0.9 or more, and the
    share of each digit among all of them."""
    logits = judge.predict(made).astype(np.float64)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    digits = np.bincount(chances.argmax(axis=1), minlength=CLASSES) / len(made)
    return float((chances.max(axis=1) >= 0.9).mean()), digits

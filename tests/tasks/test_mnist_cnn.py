"""The convolutional net for MNIST: sizes, and that it learns."""

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import mnist_cnn as task
from fastnn.tasks.images import Images, load_images


def bars(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bar across or down, at any place."""
    rng = np.random.default_rng(seed)
    x, labels = np.zeros((count, 14, 14), np.float32), np.arange(count) % 2
    for image, label in zip(x, labels, strict=True):
        at = rng.integers(14)
        (image if label else image.T)[at] = 1.0
    return x.reshape(count, -1), labels


def test_it_learns_bars() -> None:
    images = Images(*bars(256, 0), *bars(64, 1), (14, 14))
    trainer, history, accuracy = task.train_mnist_cnn(
        images, channels=(4, 8), units=16, dropout=0.0, batch_size=32, epochs=6, lr=0.01,
        workers=1, verbose=False,
    )  # fmt: skip
    assert accuracy > 0.95
    assert history["val_accuracy"][-1] == accuracy
    assert trainer.step == 6 * 8


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(OptionError, match="expected images of at least 12×12 pixels, got"):
        task.lenet((8, 8))


def test_some_of_mnist(real_data) -> None:  # type: ignore[no-untyped-def]
    whole = load_images("mnist")
    images = Images(
        whole.train[:2000], whole.train_labels[:2000], whole.test[:500], whole.test_labels[:500],
        whole.shape,
    )  # fmt: skip
    *_, accuracy = task.train_mnist_cnn(
        images, channels=(6, 16), units=32, batch_size=50, epochs=4, workers=1, verbose=False
    )
    assert accuracy > 0.8

"""Few labels: an autoencoder learns from all images, a classifier from a few labels a class.

The encoder is trained without labels; then a classifier that begins with it, and one that begins
anew, see the same few labels. Each runs to the same number of steps, for several choices of labels.

    python examples/few_labels.py --data mnist --labels 1 3 10 100
"""

from __future__ import annotations

import argparse

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.generative import Autoencoder
from fastnn.tasks.images import Images, load_images

CLASSES = 10


def encoder_of(images: Images, latent: int, epochs: int, seed: int) -> Autoencoder:
    """An autoencoder that has seen all training images, and no label."""
    pixels = images.train.shape[1]
    model = Autoencoder.mlp(
        pixels, [4 * latent, 2 * latent], latent, output="bernoulli", corruption=0.3
    )
    schedule = optim.schedules.CosineAnnealing(epochs * -(-len(images.train) // 64))
    model.fit(
        images.train, epochs=epochs, batch_size=64, seed=seed, verbose=False,
        optimizer=optim.Adam(lr=2e-3, schedule=schedule),
    )  # fmt: skip
    return model


def some(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Places of so many samples of each class."""
    rng = np.random.default_rng(seed)
    found = [rng.permutation(np.flatnonzero(labels == k))[:count] for k in range(CLASSES)]
    return np.concatenate(found)


def error(encoder: nn.Module, latent: int, images: Images, places: np.ndarray, seed: int) -> float:
    """Test error, in per cent, of a classifier that begins with this encoder."""
    model = nn.Sequential(encoder, nn.ReLU(), nn.Dropout(0.3), nn.Linear(latent, CLASSES))
    x, y = images.train[places], images.train_labels[places]
    batch = min(32, len(x))
    epochs = max(1, 600 * batch // len(x))
    trainer = fnn.Trainer(model, "cross_entropy", optim.AdamW(lr=1e-3), seed=seed)
    trainer.fit(x, y, epochs=epochs, batch_size=batch, verbose=False)
    wrong = model.predict(images.test).argmax(axis=1) != images.test_labels
    return 100 * float(wrong.mean())


def main(arguments: list[str] | None = None) -> dict[int, tuple[float, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 3, 10, 100])
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=40, help="of the autoencoder")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)

    images = load_images(options.data)
    learned = encoder_of(images, options.latent, options.epochs, seed=0)
    weights = learned.encoder.state_dict()
    fresh = Autoencoder.mlp(
        images.train.shape[1], [4 * options.latent, 2 * options.latent], options.latent
    )
    print("labels a class   with what was learned   without")
    found = {}
    for count in options.labels:
        errors: list[list[float]] = [[], []]
        for seed in range(options.repeats):
            places = some(images.train_labels, count, seed)
            learned.encoder.load_state_dict(weights)
            fresh.encoder.initialize(seed)
            for kept, model in zip(errors, (learned, fresh), strict=True):
                kept.append(error(model.encoder, options.latent, images, places, seed))
        found[count] = float(np.mean(errors[0])), float(np.mean(errors[1]))
        print(f"{count:14} {found[count][0]:20.2f} % {found[count][1]:9.2f} %", flush=True)
    return found


if __name__ == "__main__":
    main()

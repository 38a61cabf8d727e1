"""A generative adversarial net (Goodfellow et al. 2014): a generator and a discriminator play.

Each player is a step of its own: a model, a loss, an optimiser, and the `parameters` it trains. The
two models share layers, so what one step changes the other one sees; the model that has all of the
layers gets its memory first (`store()`).

The measure: a classifier trained on real digits tells how many of the ten classes the generator
makes (a generator that has collapsed makes one) and how sure it is of them.

    python examples/gan_digits.py --epochs 150
"""

from __future__ import annotations

import argparse

import numpy as np

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.data.digits import load_digits

NOISE = 16


class Gan(nn.Module):
    """Noise and real digits to the discriminator's logits for fake and for real ones."""

    def __init__(self):
        self.generator = nn.Sequential(
            nn.Linear(NOISE, 128), nn.BatchNorm(128), nn.LeakyReLU(0.2), nn.Linear(128, 128),
            nn.BatchNorm(128), nn.LeakyReLU(0.2), nn.Linear(128, 64), nn.Sigmoid(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(128, 64),
            nn.LeakyReLU(0.2), nn.Linear(64, 1),
        )  # fmt: skip

    def forward(self, noise, real):
        return self.discriminator(self.generator(noise)), self.discriminator(real)


def tell_apart(outputs, _):
    """The discriminator's loss: log-likelihood of "real" (smoothed to 0.9) and "fake"."""
    fake, real = outputs
    smooth = ops.softplus(-real) + 0.1 * real
    return ops.mean(ops.softplus(fake)) + ops.mean(smooth)


def fool(fake, _):
    """The generator's loss: the discriminator should take its digits for real."""
    return ops.mean(ops.softplus(-fake))


def train_classifier(x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    """What judges the generated digits."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), nn.LogSoftmax())
    fnn.Trainer(model, "nll", optim.Adam(lr=3e-3)).fit(x, y, epochs=epochs, verbose=False)
    return model


def main(arguments: list[str] | None = None) -> tuple[int, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    (x, y), _ = load_digits()
    gan = Gan()
    gan.store(seed=options.seed)
    chain = nn.Sequential(gan.generator, gan.discriminator)
    rates = dict(lr=4e-4, betas=(0.5, 0.999))
    discriminate = fnn.compile(
        gan, tell_apart, optim.Adam(**rates), parameters=gan.discriminator, seed=options.seed
    )
    generate = fnn.compile(
        chain, fool, optim.Adam(**rates), parameters=gan.generator, seed=options.seed + 1
    )

    rng = np.random.default_rng(options.seed)
    for epoch in range(options.epochs):
        order = rng.permutation(len(x))
        losses = []
        for begin in range(0, len(x) - options.batch + 1, options.batch):
            real = x[order[begin : begin + options.batch]]
            noise = rng.normal(size=(options.batch, NOISE)).astype(np.float32)
            losses.append((discriminate((noise, real)), generate(noise)))
        if (epoch + 1) % 25 == 0:
            d, g = np.mean(losses, axis=0)
            print(f"epoch {epoch + 1}: discriminator {d:.3f}, generator {g:.3f}")

    noise = rng.normal(size=(500, NOISE)).astype(np.float32)
    fakes = gan.generator.predict(noise)
    chances = np.exp(train_classifier(x, y, 20).predict(fakes))
    made = np.bincount(chances.argmax(axis=1), minlength=10)
    classes, sure = int((made >= 5).sum()), float(chances.max(axis=1).mean())
    for row in fakes[:4].reshape(-1, 8, 8).transpose(1, 0, 2):
        print("   ".join("".join(" .:-=+*#%@"[int(9.99 * v)] * 2 for v in line) for line in row))
    print(f"{classes} of 10 classes made (each at least 1 %), the classifier is {sure:.0%} sure")
    return classes, sure


if __name__ == "__main__":
    main()

"""Models that make images of handwritten digits: an autoencoder, a VAE, a GAN."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn, optim
from fastnn.data.digits import load_digits
from fastnn.data.mnist import load_mnist
from fastnn.engine import container
from fastnn.errors import CheckpointError, OptionError
from fastnn.generative import GAN, VAE, Autoencoder, Joined, clusters, interpolate
from fastnn.generative.gan import one_left
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import description
from fastnn.tasks.upright import upright
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

Model = Autoencoder | VAE | GAN
#: what trains each model, by which its parameters are named in a checkpoint
PREFIXES = {"autoencoder": "model.", "vae": "vae.", "gan": "gan."}


@dataclass(frozen=True)
class Images:
    """Images as rows of pixels within 0..1, with the digits that they show.

    Attributes:
        train, test: shape (samples, pixels).
        train_labels, test_labels: shape (samples,).
        shape: height and width.
    """

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    shape: tuple[int, int]


def load_images(data: str = "mnist", **source: Any) -> Images:
    """Handwritten digits.

    Args:
        data: "mnist" (60,000 and 10,000 of 28×28 pixels) or "digits" (1,438 and 359 of 8×8 pixels,
            which come with scikit-learn).
        source: options of `load_mnist`.
    """
    if data not in ("mnist", "digits"):
        raise OptionError(f"data: expected 'mnist' or 'digits', got {data!r}")
    (x, y), (x_test, y_test) = load_mnist(**source) if data == "mnist" else load_digits()
    side = 28 if data == "mnist" else 8
    rows, test = (np.ascontiguousarray(part.reshape(len(part), -1)) for part in (x, x_test))
    return Images(rows, y, test, y_test, (side, side))


def make(
    kind: str, shape: tuple[int, int], hidden: Sequence[int], latent: int,
    channels: Sequence[int] = (), **options: Any,
) -> Model:  # fmt: skip
    """A model of images as rows of pixels.

    Args:
        kind: "autoencoder", "vae" or "gan".
        shape: height and width.
        hidden: units of the fully connected layers from pixels to codes; in reverse from codes to
            pixels.
        latent: numbers in a code.
        channels: of convolutions in the place of those layers; none: fully connected.
        options: of the model's class.
    """
    if kind not in PREFIXES:
        raise OptionError(f"kind: expected one of {', '.join(PREFIXES)}, got {kind!r}")
    if channels:
        return _of_rows(kind, (1, *shape), tuple(channels), latent, **options)
    pixels = shape[0] * shape[1]
    if kind == "autoencoder":
        return Autoencoder.mlp(pixels, hidden, latent, output="bernoulli", **options)
    if kind == "vae":
        return VAE.mlp(pixels, hidden, latent, **options)
    classes = options.get("classes", 0)
    up: list[nn.Module] = []
    size = latent + classes
    for units in reversed(hidden):
        up += [nn.Linear(size, units), nn.BatchNorm(units), nn.ReLU()]
        size = units
    down: list[nn.Module] = []
    inputs = pixels + classes
    for units in hidden:
        down += [nn.Linear(inputs, units), nn.LeakyReLU(0.2), nn.Dropout(0.3)]
        inputs = units
    generator = nn.Sequential(*up, nn.Linear(size, pixels), nn.Sigmoid())
    discriminator = nn.Sequential(*down, nn.Linear(inputs, 1))
    if classes:
        return GAN(Joined(generator), Joined(discriminator), latent, **options)
    return GAN(generator, discriminator, latent, **options)


def _of_rows(
    kind: str, shape: tuple[int, int, int], channels: tuple[int, ...], latent: int, **options: Any
) -> Model:
    """A convolutional model, between rows of pixels."""
    rows = nn.Reshape(*shape)
    if kind == "gan":
        gan = GAN.dcgan(shape, channels, latent, **options)
        if gan.classes:
            made: Any = gan.generator
            judge: Any = gan.discriminator
            made.module = nn.Sequential(made.module, nn.Flatten())
            judge.before = nn.Sequential(rows, judge.before)
            return gan
        gan.generator = nn.Sequential(gan.generator, nn.Flatten())
        gan.discriminator = nn.Sequential(rows, gan.discriminator)
        return gan
    if kind == "vae":
        model: Autoencoder | VAE = VAE.convolutional(shape, channels, latent, **options)
    else:
        model = Autoencoder.convolutional(shape, channels, latent, output="bernoulli", **options)
    model.encoder = nn.Sequential(rows, model.encoder)
    model.decoder = nn.Sequential(model.decoder, nn.Flatten())
    return model


def trainer_of(
    model: Model, steps: int, lr: float, generator_lr: float | None = None, average: float = 0.0,
    **options: Any,
) -> Trainer:  # fmt: skip
    """A model's trainer with Adam, whose rate falls to 0 along a cosine in so many steps.

    `generator_lr` is the rate of a GAN's generator, if different; `average` the decay of an average
    of the parameters that is kept beside them (`optim.EMA`), 0: none; `options` are those of
    `Trainer`.
    """
    more: dict[str, Any] = {"betas": (0.5, 0.999)} if isinstance(model, GAN) else {}
    if generator_lr is not None:
        more["groups"] = {"gan.generator.*": {"lr": generator_lr}}
    optimizer: optim.Optimizer = optim.Adam(lr=lr, schedule=CosineAnnealing(steps), **more)
    if average:
        optimizer = optim.EMA(optimizer, decay=average)
    return model.trainer(optimizer=optimizer, **options)


def decay_for(steps: int) -> float:
    """The decay of a GAN's average in so many steps: what lies 1,000 steps back, or a tenth of all
    if that is less, counts 1 / e."""
    return min(0.999, max(0.0, 1.0 - 10.0 / steps))


def clustered(images: Images, count: int) -> tuple[NDArray[np.int64], list[float]]:
    """The cluster of each image that is learned from, and how frequent each cluster is.

    Images are compared without their slant (`upright`).
    """
    found = clusters(upright(images.train, images.shape), count)
    return found, list(np.bincount(found, minlength=count) / len(found))


def fit(
    model: Model, trainer: Trainer, images: Images, *, epochs: int, batch_size: int,
    callbacks: Sequence[Callback] = (), resume: str | Path | None = None, verbose: bool = True,
    classes: NDArray[np.int64] | None = None,
) -> Any:  # fmt: skip
    """Train on images; returns the history, with the loss on the test images where a model has
    one. `classes` are what a conditional GAN is told; by default the digits."""
    x, test = images.train, images.test
    more: dict[str, Any] = dict(
        epochs=epochs, batch_size=batch_size, callbacks=list(callbacks), resume=resume,
        verbose=verbose,
    )  # fmt: skip
    if isinstance(model, GAN):
        told = images.train_labels if classes is None else classes
        given = (x, told) if model.classes else x
        return trainer.fit(given, drop_last=one_left(x, batch_size), **more)
    return trainer.fit(x, x, validation=(test, test), **more)


# -------------------------------------------------------------------- what they are measured by


def component_error(images: Images, components: int) -> float:
    """The mean square that principal components leave of a test image's pixel, for as many numbers
    as a code has."""
    x, test = images.train.astype(np.float64), images.test.astype(np.float64)
    centre = x.mean(axis=0)
    x, test = x - centre, test - centre
    _, vectors = np.linalg.eigh(x.T @ x)
    kept = vectors[:, -min(components, x.shape[1]) :]
    return float(np.square(test - test @ kept @ kept.T).mean())


def drawn_samples(
    model: Model, count: int, seed: int = 0, walk: bool = False, truncation: float | None = None
) -> NDArray[Any]:
    """Images that a model makes, shape (count, pixels).

    Args:
        model: a VAE or a GAN.
        count: how many; of a conditional model's classes in turn, of clusters as frequent as they
            are.
        seed: of the codes.
        walk: whether each ten images are on the way from one drawn code to another.
        truncation: of a GAN's noise, see `GAN.sample`; not with walks.

    Raises OptionError for an autoencoder, whose codes have no distribution to draw from, and for
    truncation where there is none.
    """
    if truncation is not None and (walk or not isinstance(model, GAN)):
        raise OptionError(
            "truncation: expected with samples of a GAN only, got it with "
            f"{'a walk' if walk else type(model).__name__}; leave it out"
        )
    if isinstance(model, Autoencoder):
        raise OptionError(
            "sample: expected a VAE or a GAN, got an autoencoder, whose codes have no distribution "
            "to draw from; use its reconstruct"
        )
    classes = model.classes
    if not walk:
        more: dict[str, Any] = {} if truncation is None else {"truncation": truncation}
        if classes and not _of_clusters(model):
            more["y"] = np.arange(count) % classes
        return model.sample(count, seed=seed, **more)
    rows = -(-count // 10)
    ends = np.random.default_rng(seed).normal(size=(rows, 2, model.latent))
    codes = np.concatenate([interpolate(a, b, 10, spherical=True) for a, b in ends])[:count]
    codes = codes.astype(np.float32)
    told = [np.arange(count) // 10 % classes] if classes else []
    draw: Any = model.decode if isinstance(model, VAE) else model.predict
    made: NDArray[Any] = draw(codes, *told)
    return made


def _of_clusters(model: Model) -> bool:
    """Whether a model's classes are clusters, and no digits."""
    return isinstance(model, GAN) and model.shares is not None


# -------------------------------------------------------------------- beside a checkpoint


def save_description(
    checkpoint: Path, kind: str, shape: tuple[int, int], hidden: Sequence[int], latent: int,
    options: dict[str, Any], channels: Sequence[int] = (), average: float = 0.0,
) -> Path:  # fmt: skip
    """Write what is needed to make the model again, as JSON beside a checkpoint.

    With an `average`, it is the averaged parameters that make the model.
    """
    kept = dict(options)
    shares = list(kept.pop("shares", ()))
    state = dict(
        kind=kind, shape=list(shape), hidden=list(hidden), latent=latent, options=kept,
        channels=list(channels), shares=shares, average=average,
    )  # fmt: skip
    return description.write(checkpoint, state)


def load_image_model(path: str | os.PathLike[str]) -> tuple[Model, tuple[int, int]]:
    """A trained model and the height and width of its images.

    Args:
        path: a checkpoint with its description beside it, or the folder that `fastnn train vae` (or
            `gan`, or `autoencoder`) wrote.

    Raises DataError where there is no description, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "images") as (checkpoint, state):
        kind, (height, width) = state["kind"], state["shape"]
        files.check_options(
            {**state["options"], "height": height, "width": width, "latent": state["latent"]}
        )
        hidden, channels = (
            [int(n) for n in state.get(name, [])] for name in ("hidden", "channels")
        )
        options = dict(state["options"])
        if state.get("shares"):
            options["shares"] = [float(share) for share in state["shares"]]
        model = make(kind, (height, width), hidden, state["latent"], channels, **options)
        averaged = bool(state.get("average"))
    model.load(checkpoint, prefix=PREFIXES[kind])
    if averaged:
        _load_average(model, checkpoint, PREFIXES[kind])
    return model, (height, width)


def _load_average(model: Model, checkpoint: Path, prefix: str) -> None:
    """Put the averages that a checkpoint's optimizer kept in the place of the parameters."""
    head = f"optimizer.{optim.EMA.kept}.{prefix}"
    arrays, _ = container.read(checkpoint)
    kept = {n.removeprefix(head): a for n, a in arrays.items() if n.startswith(head)}
    if not kept:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r}: expected averages of the parameters, which its "
            "description tells of, got none; train the model again"
        )
    model.load_state_dict(kept, strict=False)

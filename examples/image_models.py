"""Kinds of autoencoders beside each other, and a conditional VAE: pictures, and what they measure.

python examples/image_models.py autoencoders --picture autoencoders.png --filters filters.png
python examples/image_models.py conditional-vae --picture conditional-vae.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import optim
from fastnn.files import new_figure, save_figure
from fastnn.generative import VAE, Autoencoder
from fastnn.generative.latent import noise
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks.digit_judge import judged, train_judge
from fastnn.tasks.images import Images, component_error, load_images, make

CLASSES = 10
#: the options of each kind; "channels" are of convolutions in the place of the linear layers
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "denoising": {"corruption": 0.5},
    "sparse": {"sparsity": 5.0},
    "contractive": {"contraction": 1.0},
    "convolutional": {"channels": (16, 32)},
}
#: the share of pixels that the damaged images lack, and the noise that codes should not care about
DAMAGE, NOISE = 0.5, 0.1
#: images in a row, and units whose weights are drawn
SHOWN, FILTERS = 8, 16


def trained(model: Any, given: tuple[Any, ...], options: argparse.Namespace) -> Any:
    """The model, after Adam with a rate that falls along a cosine."""
    steps = options.epochs * -(-len(given[0]) // 100)
    model.fit(
        *given, epochs=options.epochs, batch_size=100, seed=0, verbose=False,
        workers=options.workers, optimizer=optim.Adam(lr=2e-3, schedule=CosineAnnealing(steps)),
    )  # fmt: skip
    return model


# ---------------------------------------------------------------- autoencoders


def measures(model: Autoencoder, test: np.ndarray, damaged: np.ndarray) -> dict[str, float]:
    """What a kind of autoencoder is made for, each free of the scale of its codes.

    Returns:
        "error" and "damaged", the mean square of a pixel of what is reconstructed from test images
        and from damaged ones; "sparse", 0 for codes of equal numbers and 1 for those of a single
        one (Hoyer 2004); "moved", how far noise moves a code, as a share of the distance between
        the codes of two images.
    """
    codes = model.encode(test)
    size = codes.shape[1] ** 0.5
    share = np.abs(codes).sum(axis=1) / np.linalg.norm(codes, axis=1)
    random = np.random.default_rng(1)
    noisy = test + random.normal(0, NOISE, test.shape).astype(np.float32)
    moved = np.linalg.norm(model.encode(noisy) - codes, axis=1).mean()
    apart = np.linalg.norm(codes - np.roll(codes, 1, axis=0), axis=1).mean()
    return {
        "error": float(np.square(model.reconstruct(test) - test).mean()),
        "damaged": float(np.square(model.reconstruct(damaged) - test).mean()),
        "sparse": float(((size - share) / (size - 1)).mean()),
        "moved": float(moved / apart),
    }


def autoencoders(images: Images, options: argparse.Namespace) -> dict[str, Any]:
    test = images.test
    damaged = np.where(np.random.default_rng(0).random(test.shape) < DAMAGE, 0, test)
    damaged = damaged.astype(np.float32)
    print(f"{options.latent} components: error {component_error(images, options.latent):.5f}")
    found: dict[str, Any] = {}
    rows, weights = [("images", [test]), ("half missing", [damaged])], {}
    for kind in options.kinds:
        own = dict(KINDS[kind])
        channels = own.pop("channels", ())
        model = make("autoencoder", images.shape, (256,), options.latent, channels, **own)
        assert isinstance(model, Autoencoder)
        trained(model, (images.train,), options)
        found[kind] = measures(model, test, damaged)
        print(kind, *(f"{name} {value:.4f}" for name, value in found[kind].items()), flush=True)
        rows.append((kind, [model.reconstruct(test[:SHOWN]), model.reconstruct(damaged[:SHOWN])]))
        first = next(p for name, p in model.encoder.named_parameters().items() if "weight" in name)
        weights[kind] = np.array(first.value).reshape(
            len(first.value), *(images.shape if not channels else first.value.shape[2:])
        )
    save_figure(draw_rows(rows, images.shape), options.picture)
    save_figure(draw_filters(weights), options.filters)
    print(f"pictures        {options.picture}, {options.filters}")
    return found


def draw_rows(rows: list[tuple[str, list[np.ndarray]]], shape: tuple[int, int]) -> Any:
    """Rows of images, each row or pair of rows with its name."""
    images = [part[:SHOWN] for _, parts in rows for part in parts]
    figure = new_figure(3.8, 0.34 * len(images))
    ax = figure.subplots()
    ax.imshow(sheet(np.concatenate(images), shape, SHOWN), cmap="gray", vmin=0, vmax=1)
    starts = np.cumsum([0, *(len(parts) for _, parts in rows)]) * (shape[0] + 1)
    ax.set_yticks((starts[:-1] + starts[1:]) / 2, [name for name, _ in rows], fontsize=7)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def draw_filters(weights: dict[str, np.ndarray]) -> Any:
    """The units of each first layer with the largest weights: blue below 0, red above."""
    figure = new_figure(1.3 * len(weights), 1.5)
    panels = figure.subplots(1, len(weights), squeeze=False)[0]
    for (name, units), ax in zip(weights.items(), panels, strict=True):
        order = np.argsort(-np.square(units).sum(axis=(1, 2)), kind="stable")[:FILTERS]
        chosen = units[order] / np.abs(units[order]).max(axis=(1, 2), keepdims=True)
        shown = np.round(8 * sheet(chosen, units.shape[1:], 4))  # few colours: a small file
        ax.imshow(shown, cmap="RdBu_r", vmin=-8, vmax=8, interpolation="nearest")
        ax.set_title(name, fontsize=7)
        ax.set_axis_off()
    return figure


def sheet(images: np.ndarray, shape: tuple[int, ...], columns: int) -> np.ndarray:
    """Images in rows, one pixel of white (of nothing, NaN) between them."""
    down = -(-len(images) // columns)
    whole = np.full((down * columns, shape[0] + 1, shape[1] + 1), np.nan)
    whole[: len(images), 1:, 1:] = np.reshape(images, (-1, *shape))
    whole = whole.reshape(down, columns, *whole.shape[1:]).swapaxes(1, 2)
    return whole.reshape(down * (shape[0] + 1), -1)[1:, 1:]


# ---------------------------------------------------------------- the conditional VAE


def conditional_vae(images: Images, options: argparse.Namespace) -> dict[str, float]:
    model = VAE.mlp(images.train.shape[1], [400], options.latent, classes=CLASSES)
    trained(model, (images.train, images.train_labels), options)
    bound = model.bound(images.test, images.test_labels)
    print(f"test bound      {bound:.2f} nats, the digit being known")
    # one code a row, and in this row each digit with it
    codes = np.repeat(noise(10, options.latent, 0), CLASSES, axis=0)
    made = model.decode(codes, np.tile(np.arange(CLASSES), 10))
    figure = new_figure(6.0, 6.0)
    ax = figure.subplots()
    ax.imshow(sheet(made, images.shape, CLASSES), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    save_figure(figure, options.picture)
    print(f"picture         {options.picture}")
    asked = np.arange(10_000) % CLASSES
    judge, made = train_judge(images, workers=options.workers), model.sample(10_000, asked)
    sure, _ = judged(judge, made)
    right = float((judge.predict(made).argmax(axis=1) == asked).mean())
    print(f"recognised      {sure:.1%} of 10,000 samples, with 0.9 or more")
    print(f"as asked for    {right:.1%} of them")
    return {"bound": bound, "sure": sure, "right": right}


def main(arguments: list[str] | None = None, images: Images | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["autoencoders", "conditional-vae"])
    parser.add_argument("--data", choices=["digits", "mnist"], default="mnist")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--latent", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--picture", type=Path, default=Path("pictures.png"))
    parser.add_argument("--filters", type=Path, default=Path("filters.png"))
    options = parser.parse_args(arguments)
    run = autoencoders if options.what == "autoencoders" else conditional_vae
    return run(images or load_images(options.data), options)


if __name__ == "__main__":
    main()

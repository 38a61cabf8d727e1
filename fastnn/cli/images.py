"""What `fastnn train autoencoder`, `vae` and `gan` have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from fastnn.cli import options

Command = Callable[..., Any]
#: of a GAN, that a classifier judges
SAMPLES = 10_000


def described(
    *, hidden: str, latent: int, channels: str = "none"
) -> Callable[[Command], Command]:  # fmt: skip
    """The options of data and layers.

    Args:
        hidden, latent, channels: their defaults.
    """
    own: list[Any] = [
        click.option(
            "--data", type=click.Choice(["mnist", "digits"]), default="mnist", show_default=True,
            help="MNIST, or the 1,797 smaller digits that come with scikit-learn.",
        ),
        click.option(
            "--hidden", default=hidden, show_default=True, callback=options.check_sizes,
            help="Sizes of the layers from pixels to codes; the way back has them in reverse.",
        ),
        click.option(
            "--channels", default=channels, show_default=True, callback=check_channels,
            help="Channels of convolutions that replace --hidden, such as 32,64; each halves the "
            "image. Or none.",
        ),
        options.count("--latent", latent, "Numbers in a code."),
    ]  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(own):
            command = option(command)
        return command

    return add


def check_channels(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Channels such as 32,64, or none."""
    return () if text == "none" else options.check_sizes(ctx, option, text)


def run(
    ctx: click.Context, kind: str, *, data: str, hidden: tuple[int, ...], channels: tuple[int, ...],
    latent: int, own: dict[str, Any], output: Path, quiet: bool, epochs: int, batch_size: int,
    lr: float, seed: int, device: str, workers: int | str, resume: Path | None,
    generator_lr: float | None = None, truncation: float | None = None, clusters: int = 0,
    average: float | None = 0.0,
) -> None:  # fmt: skip
    """Train a model, write it with its pictures, and say how good it is.

    `own` are the options of its class; `generator_lr` and `clusters` are a GAN's, and `truncation`
    that of its samples; `average` is the decay of its parameters' average, None for one that goes
    with the number of steps.
    """
    from fastnn.tasks import images as task

    images = task.load_images(data)
    told = None
    if clusters:
        told, shares = task.clustered(images, clusters)
        own |= dict(classes=clusters, shares=shares)
    model = task.make(kind, images.shape, hidden, latent, channels, **own)
    steps = epochs * -(-len(images.train) // batch_size)
    where = dict(seed=seed, device=device, workers=workers)
    decay = task.decay_for(steps) if average is None else average
    trainer = task.trainer_of(model, steps, lr, generator_lr, decay, **where)
    history = task.fit(
        model, trainer, images, epochs=epochs, batch_size=batch_size, resume=resume,
        verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], classes=told,
    )  # fmt: skip
    written = options.write(trainer, history, output)
    task.save_description(written[0][1], kind, images.shape, hidden, latent, own, channels, decay)
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    with trainer.averaged() if decay else nullcontext():
        for what, name, shown in _pictures(kind, model, images):
            path = options.folder(output) / name
            if options.drawn(lambda path=path, shown=shown: _draw(shown, images.shape, path)):  # type: ignore[misc]
                written.append((what, path))
        measures = _measures(kind, model, images, latent, truncation, where)
    options.conclude(ctx, trainer, history, written, measures)


def _pictures(kind: str, model: Any, images: Any) -> list[tuple[str, str, Any]]:
    """What is drawn: its name, its file, the images."""
    import numpy as np

    from fastnn.generative import manifold
    from fastnn.tasks import images as task

    found = []
    if kind != "gan":
        seen = images.test[:40]
        pairs = np.concatenate(
            [seen.reshape(4, 10, -1), model.reconstruct(seen).reshape(4, 10, -1)], 1
        )
        found.append(("test images", "reconstructions.png", pairs.reshape(80, -1)))
    if kind != "autoencoder":
        found.append(("samples", "samples.png", task.drawn_samples(model, 100)))
    if kind == "vae" and model.latent == 2:
        found.append(("manifold", "manifold.png", model.decode(manifold(20))))
    return found


def _draw(shown: Any, shape: tuple[int, int], path: Path) -> None:
    from fastnn import plot

    plot.samples(shown, shape, columns=20 if len(shown) == 400 else 10, path=path)


def _measures(
    kind: str, model: Any, images: Any, latent: int, truncation: float | None,
    where: dict[str, Any],
) -> list[tuple[str, str]]:  # fmt: skip
    from fastnn.tasks import images as task
    from fastnn.tasks.digit_judge import judged, train_judge

    if kind == "autoencoder":
        import numpy as np

        error = float(np.square(images.test - model.reconstruct(images.test)).mean())
        best = task.component_error(images, latent)
        return [
            ("test error", f"{error:.5f} a pixel, mean square"),
            ("of components", f"{error / best:.2f} of {best:.5f}, which {latent} of PCA leave"),
        ]
    if kind == "vae":
        return [
            ("test bound", f"{model.bound(images.test):.2f} nats"),
            ("of 50 draws", f"{model.bound(images.test, draws=50):.2f} nats"),
        ]
    judge, found = train_judge(images, **where), []
    for name, cut in (("recognised", None), ("truncated", truncation)):
        if name == "truncated" and cut is None:
            continue
        sure, digits = judged(judge, task.drawn_samples(model, SAMPLES, truncation=cut))
        within = "" if cut is None else f", noise within {cut:g}"
        found += [
            (name, f"{100 * sure:.1f} % of {SAMPLES:,} samples, with 0.9 or more{within}"),
            ("digits", f"each {100 * digits.min():.1f} to {100 * digits.max():.1f} % of them"),
        ]
    return found

"""Generative adversarial nets: two players trained by one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import nn, ops, optim
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, is_whole, where
from fastnn.generative.convolutional import conv_decoder, conv_encoder
from fastnn.generative.joined import Joined, one_hot
from fastnn.generative.latent import noise, stacked
from fastnn.generative.outputs import sum_from
from fastnn.graph.value import Value
from fastnn.nn.constant import detached
from fastnn.nn.module import Module
from fastnn.optim.names import given_or_default
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from fastnn.train.history import History


class Game(NamedTuple):
    """What each player minimises, of the discriminator's outputs for real and made samples."""

    discriminator: Callable[[Value, Value, float], Value]
    generator: Callable[[Value], Value]


def _tell_apart(real: Value, made: Value, smoothing: float) -> Value:
    """-log D(x) - log(1 - D(G(z))), with logits; "real" may count as 1 - smoothing."""
    truth = ops.add(ops.softplus(ops.negate(real)), ops.affine(real, smoothing, 0.0))
    return ops.add(truth, ops.softplus(made))


def _by_squares(real: Value, made: Value, smoothing: float) -> Value:
    miss = ops.square(ops.affine(real, 1.0, smoothing - 1.0))
    return ops.affine(ops.add(miss, ops.square(made)), 0.5, 0.0)


def _by_hinge(real: Value, made: Value, smoothing: float) -> Value:
    return ops.add(ops.relu(ops.affine(real, -1.0, 1.0)), ops.relu(ops.affine(made, 1.0, 1.0)))


GAMES = {
    "non_saturating": Game(_tell_apart, lambda made: ops.softplus(ops.negate(made))),
    "least_squares": Game(
        _by_squares, lambda made: ops.affine(ops.square(ops.affine(made, 1.0, -1.0)), 0.5, 0.0)
    ),
    "wasserstein": Game(lambda real, made, _: ops.subtract(made, real), ops.negate),
    "hinge": Game(_by_hinge, ops.negate),
}
#: of the discriminator's slope
PENALTIES = ("gradient", "r1")


class GAN(Module):
    """A generative adversarial net (Goodfellow et al. 2014): a generator makes samples from noise,
    a discriminator tells them from real ones, and each learns from the other.

    Both players' gradients are those at the parameters before the step, and one compiled program
    makes the whole step: the generator runs once, and the discriminator's parameters count as
    constants in what the generator minimises (`nn.detached`).

    As a layer it turns noise into samples.

    Args:
        generator: a module, from noise of shape (batch, latent) to samples.
        discriminator: a module, from samples to one number each, shape (batch,) or (batch, 1); the
            larger, the more real.
        latent: numbers in the noise, which is N(0, 1).
        loss: "non_saturating" (Goodfellow et al. 2014), "least_squares" (Mao et al. 2017),
            "wasserstein" (Arjovsky et al. 2017; use it with a penalty) or "hinge" (Lim & Ye 2017).
        penalty: None, "gradient" (of Gulrajani et al. 2017: ``(|grad D| - 1)^2`` at random places
            between real and made samples) or "r1" (of Mescheder et al. 2018: ``|grad D|^2 / 2`` at
            real samples).
        penalty_weight: its factor; None is 10.
        smoothing: of the label "real", which counts as 1 - smoothing (Salimans et al. 2016), for
            "non_saturating" and "least_squares".
        classes: C > 0 for a conditional one (Mirza & Osindero 2014): both modules get the class as
            a second input, shape (batch, C) with one 1, and `fit` gets class numbers as y. See
            `Joined`; for data without labels, `clusters`.
        shares: of a conditional one, how frequent each class is; `sample` then draws the classes
            that it is not given.

    Raises OptionError for numbers out of range, an unknown `loss` or `penalty`, a weight without a
    penalty, and `shares` that are not one for each class, or don't sum to 1;
    ShapeError for class numbers where there are no classes, or none where there are some.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> from fastnn.generative import GAN
    >>> x = np.random.default_rng(0).normal(3.0, 0.5, size=(512, 1))
    >>> one, two = ([nn.Linear(i, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)] for i in (2, 1))
    >>> gan = GAN(nn.Sequential(*one), nn.Sequential(*two), latent=2)
    >>> history = gan.fit(x, epochs=30, batch_size=32, lr=2e-3, verbose=False)
    >>> gan.sample(5, seed=1).shape
    (5, 1)
    """

    def __init__(
        self, generator: Module, discriminator: Module, latent: int, loss: str = "non_saturating",
        penalty: str | None = None, penalty_weight: float | None = None, smoothing: float = 0.0,
        classes: int = 0, shares: Sequence[float] | None = None,
    ):  # fmt: skip
        check_whole("GAN", 1, latent=latent)
        check_whole("GAN", 0, classes=classes)
        check_numbers("GAN", smoothing=smoothing)
        if loss not in GAMES:
            raise OptionError(f"GAN loss: expected one of {', '.join(GAMES)}, got {loss!r}")
        if penalty is not None and penalty not in PENALTIES:
            raise OptionError(f"GAN penalty: expected None or one of {PENALTIES}, got {penalty!r}")
        if penalty is None and penalty_weight is not None:
            raise OptionError("GAN penalty_weight: expected a penalty to weigh, got none")
        weight = 10.0 if penalty_weight is None else penalty_weight
        check_numbers("GAN", penalty_weight=weight)
        if weight < 0:
            raise OptionError(f"GAN penalty_weight: expected a number >= 0, got {weight}")
        if not 0 <= smoothing < 1 or (smoothing and loss in ("wasserstein", "hinge")):
            raise OptionError(
                "GAN smoothing: expected a number in [0, 1), and 0 for a loss without labels, got "
                f"{smoothing} for {loss!r}"
            )
        self.generator, self.discriminator, self.latent = generator, discriminator, int(latent)
        self.loss, self.penalty, self.penalty_weight = loss, penalty, float(weight)
        self.smoothing, self.classes = float(smoothing), int(classes)
        self.shares = None if shares is None else _checked(shares, self.classes)

    @classmethod
    def dcgan(
        cls, shape: Sequence[int], channels: Sequence[int] = (64, 128), latent: int = 100, *,
        discriminator_units: int = 0, generator_units: int = 0,
        output: type[Module] = nn.Sigmoid, classes: int = 0, **options: Any,
    ) -> GAN:  # fmt: skip
        """A GAN of convolutions (DCGAN, Radford et al. 2016): the generator is a `conv_decoder`
        with ReLU, the discriminator a `conv_encoder` with leaky ReLU of slope 0.2; both have batch
        normalisation, except where they meet the images, and initial weights of N(0, 0.02^2).

        Args:
            shape: (C, H, W) of an image.
            channels: of the discriminator's convolutions, the generator's in reverse.
            latent: numbers in the noise.
            discriminator_units, generator_units: of one more linear layer between convolutions and
                numbers, without which neither net makes much of an image as a whole; 0 is none, as
                in DCGAN.
            output: the generator's last activation: `nn.Sigmoid` for pixels within 0..1, `nn.Tanh`
                for pixels within -1..1.
            classes: C > 0 for a conditional one: the generator gets the class beside its noise,
                the discriminator beside the features that its convolutions find (`Joined`).
            options: as for the class.

        Raises OptionError for a `latent` below 1, and for images that it cannot make.

        >>> from fastnn.generative import GAN
        >>> GAN.dcgan((1, 28, 28), channels=(8, 16), latent=10).sample(5).shape
        (5, 1, 28, 28)
        """
        check_whole("GAN", 1, latent=latent)
        check_whole("GAN", 0, classes=classes)
        init = nn.init.get("normal", std=0.02)
        generator = conv_decoder(
            latent + classes, channels, shape, hidden=generator_units, weight_init=init
        )
        leaky = partial(nn.LeakyReLU, 0.2)
        discriminator = conv_encoder(
            shape, channels, 1, hidden=discriminator_units, activation=leaky, weight_init=init
        )
        generator.append(output())
        if not classes:
            return cls(generator, discriminator, latent, **options)
        layers: list[Any] = discriminator.layers
        at = 1 + next(k for k, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        first = nn.Linear(
            layers[at].in_features + classes, layers[at].out_features, weight_init=init
        )
        head = nn.Sequential(first, *layers[at + 1 :])
        judge = Joined(head, before=nn.Sequential(*layers[:at]))
        return cls(Joined(generator), judge, latent, classes=classes, **options)

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, z: Value, y: Value | None = None) -> Value:
        result: Value = self.generator(z, *self._condition(z, y))
        return result

    def _condition(self, x: Value, y: Value | None) -> tuple[Value, ...]:
        if (y is not None) != bool(self.classes):
            wanted = f"class numbers below {self.classes}" if self.classes else "no class numbers"
            raise ShapeError(
                f"{where(x.graph.scope)}GAN: expected {wanted}, got "
                f"{'none' if y is None else 'some'}; a conditional GAN has classes=..."
            )
        return () if y is None else (one_hot(y, self.classes),)

    def judged(self, x: Value, *condition: Value) -> Value:
        """The discriminator's output for data x (and their `condition`), shape (batch,).

        Raises ShapeError if it has another shape.
        """
        found = self.discriminator(x, *condition)
        if found.shape not in ((x.shape[0],), (x.shape[0], 1)):
            raise ShapeError(
                f"{where(x.graph.scope)}GAN: expected the discriminator's output to have shape "
                f"(batch, 1), one number for each sample, got {found.shape}"
            )
        return ops.reshape(found, (x.shape[0],))

    # ---------------------------------------------------------------- of arrays

    def sample(
        self, count: int = 1, y: Any = None, seed: int = 0, truncation: float | None = None
    ) -> np.ndarray:
        """Samples that the generator makes, in evaluation mode, shape (count, ...).

        Args:
            count: how many.
            y: of a conditional GAN, a class number or `count` of them; without, classes are drawn
                with the probabilities `shares`, if it has them.
            seed: of the noise, and of drawn classes.
            truncation: draws numbers of the noise further from 0 than this again, for samples that
                are better and less various (the truncation trick of Brock et al. 2019); at least
                0.1; None draws them all as in training.
        """
        given = [noise(count, self.latent, seed, truncation)]
        if y is None and self.shares is not None:
            y = np.random.default_rng([seed, 1]).choice(self.classes, count, p=self.shares)
        if y is not None:
            given.append(stacked(y, count))
        found: np.ndarray = self.predict(*given)
        return found

    def trainer(
        self, *, optimizer: Any = None, lr: float | None = None,
        generator_lr: float | None = None, betas: tuple[float, float] | None = None, **options: Any,
    ) -> Trainer:  # fmt: skip
        """The trainer, whose `fit` takes samples alone: ``fit(x)``, or ``fit((x, y))`` with class
        numbers for a conditional GAN. "loss" is the sum of both players';
        "discriminator_loss" and "generator_loss" are each one's own.

        Args:
            optimizer: as for `Trainer`, for both players (parameter groups: "gan.generator.*" and
                "gan.discriminator.*"); None is Adam with the options that follow.
            lr: the learning rate; None is 2e-4. An optimizer that is given has its own.
            generator_lr: the generator's learning rate, if different (Heusel et al. 2017).
            betas: of Adam; None is (0.5, 0.999) (Radford et al. 2016).
            options: as for `Trainer`.
        """
        if optimizer is not None and generator_lr is not None:
            raise OptionError(
                "GAN generator_lr: expected no optimizer with it; give the optimizer "
                'groups={"gan.generator.*": {"lr": ...}}'
            )
        groups = None if generator_lr is None else {"gan.generator.*": {"lr": generator_lr}}
        default = partial(optim.Adam, lr=2e-4, betas=(0.5, 0.999), groups=groups)
        optimizer = given_or_default("GAN.trainer", optimizer, default, lr=lr, betas=betas)
        losses = dict.fromkeys(("discriminator", "generator"), _mean)
        return Trainer(Players(self), losses, optimizer, **options)

    def fit(
        self, x: Any, y: Any = None, *, epochs: int = 10, batch_size: int = 64,
        verbose: bool = True, callbacks: Any = (), resume: Any = None, **options: Any,
    ) -> History:  # fmt: skip
        """Let both players learn.

        A single sample that is left over for an epoch's last batch is left out, another one in each
        epoch: batch normalisation needs two.

        Args:
            x: real samples, shape (samples, ...).
            y: class numbers, for a conditional GAN.
            epochs, batch_size, verbose, callbacks, resume: as for `Trainer.fit`.
            options: as for `trainer`.

        Returns:
            The history, with "discriminator_loss" and "generator_loss".
        """
        given = x if y is None else (x, y)
        return self.trainer(**options).fit(
            given, epochs=epochs, batch_size=batch_size, verbose=verbose, callbacks=callbacks,
            resume=resume, drop_last=one_left(x, batch_size),
        )  # fmt: skip

    def extra(self) -> str:
        return f"{self.latent}, {self.loss}"


class Players(Module):
    """What is trained: each player's loss for each sample.

    Args:
        gan: both of them.
    """

    def __init__(self, gan: GAN):
        self.gan = gan

    def forward(self, x: Value, y: Value | None = None) -> dict[str, Value]:
        gan, game = self.gan, GAMES[self.gan.loss]
        condition = gan._condition(x, y)
        place = x.graph.full((x.shape[0], gan.latent), 0.0, batched=True)
        made = gan.generator(ops.normal_like(place), *condition)
        if made.shape != x.shape:
            raise ShapeError(
                f"{where(x.graph.scope)}GAN: expected the generator to make samples of the data's "
                f"shape {x.shape}, got {made.shape}; change its last layer"
            )
        fixed = ops.detach(made)
        real, fake = gan.judged(x, *condition), gan.judged(fixed, *condition)
        loss = game.discriminator(real, fake, gan.smoothing)
        if gan.penalty is not None:
            loss = ops.add(loss, self._penalty(x, fixed, condition))
        with detached(gan.discriminator):
            believed = gan.judged(made, *condition)
        return {"discriminator": loss, "generator": game.generator(believed)}

    def _penalty(self, x: Value, made: Value, condition: tuple[Value, ...]) -> Value:
        """Of the discriminator's slope at each sample, shape (batch,)."""
        gan = self.gan
        if gan.penalty == "r1":
            place = ops.detach(x)
            slope = ops.gradient(ops.sum(gan.judged(place, *condition)), place)
            return ops.affine(sum_from(ops.square(slope), 1), 0.5 * gan.penalty_weight, 0.0)
        shape = (x.shape[0], *[1] * (x.ndim - 1))
        share = ops.uniform_like(x.graph.full(shape, 0.0, batched=True))
        place = ops.detach(ops.add(made, ops.multiply(share, ops.subtract(x, made))))
        slope = ops.gradient(ops.sum(gan.judged(place, *condition)), place)
        # the square root's slope is finite where the slope is 0, too
        norm = ops.sqrt(ops.affine(sum_from(ops.square(slope), 1), 1.0, 1e-12))
        return ops.affine(ops.square(ops.affine(norm, 1.0, -1.0)), gan.penalty_weight, 0.0)


def one_left(x: Any, batch: Any) -> bool:
    """Whether a single sample is left over for the last batch."""
    shape: Any = getattr(x, "shape", ())
    return bool(shape) and is_whole(batch, 2) and shape[0] % batch == 1


def _checked(shares: Any, classes: int) -> tuple[float, ...]:
    """How frequent each class is."""
    try:
        found = np.asarray(shares, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if not classes or found.shape != (classes,) or not (found >= 0).all() or (
        abs(found.sum() - 1.0) > 1e-6
    ):  # fmt: skip
        raise OptionError(
            f"GAN shares: expected numbers from 0 on that sum to 1, one for each of {classes} "
            f"classes, got {shares!r}"[:300]
        )
    return tuple(map(float, found / found.sum()))


def _mean(output: Value, target: Any) -> Value:
    return ops.mean(output)

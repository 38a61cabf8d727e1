"""The variational autoencoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import ops, optim
from fastnn.engine.numbers import numbers
from fastnn.errors import (
    DataError,
    OptionError,
    ShapeError,
    check_numbers,
    check_whole,
    where,
)
from fastnn.generative.convolutional import Halves
from fastnn.generative.joined import Joined, one_hot
from fastnn.generative.latent import noise, stacked
from fastnn.generative.outputs import Output, check_hidden
from fastnn.graph.value import Value
from fastnn.nn.activation import ReLU
from fastnn.nn.containers import Sequential
from fastnn.nn.linear import Linear
from fastnn.nn.method import Sampler, apply
from fastnn.nn.module import Module
from fastnn.optim.names import given_or_default
from fastnn.train.metrics import Metric
from fastnn.train.trainer import Trainer
from fastnn.train.unlabelled import mean_loss

if TYPE_CHECKING:
    from fastnn.train.history import History


class VAE(Halves):
    """A variational autoencoder (Kingma & Welling 2014): data x are generated from a normally
    distributed code z, and an encoder says which codes a sample may come from::

        z ~ N(0, I),   x ~ p(x | decoder(z)),   q(z | x) = N(mu, diag(sigma^2))

    Training maximises the lower bound of log p(x),
    ``E_q log p(x | z) - beta KL(q(z | x) || N(0, I))``, or with several draws the tighter
    ``E log (1/K) sum_k p(x, z_k) / q(z_k | x)`` (importance-weighted, Burda et al. 2016).

    As a layer it returns mu, the mean of the code.

    Args:
        encoder: a module, from data to 2 * latent numbers: mu and log sigma^2.
        decoder: a module, from codes to the data's shape.
        latent: L, the size of a code.
        output: "bernoulli" (the decoder's output are logits; data within 0..1) or "gaussian" (it
            is the mean).
        std: the standard deviation of data around that mean, for "gaussian".
        beta: the factor of the divergence (Higgins et al. 2017).
        free_bits: the divergence in nats that each number of the code may have without being
            penalised, averaged over the mini-batch (Kingma et al. 2016); 0 means none.
        draws: K, codes drawn of each sample in training. More than one train the
            importance-weighted bound, which takes beta 1 and no free bits.
        classes: C > 0 for a conditional VAE (Sohn et al. 2015): encoder and decoder get the class
            as a second input, shape (batch, C) with one 1, and `fit` gets class numbers as y. See
            `Joined`.

    Raises OptionError for numbers out of range, and for `beta` or `free_bits` with several draws;
    ShapeError for an encoder whose output is not (batch, 2 latent), for class numbers where there
    are no classes, or none where there are some.

    >>> import numpy as np
    >>> from fastnn.generative import VAE
    >>> x = np.tile(np.eye(4, dtype=np.float32), (64, 1))
    >>> vae = VAE.mlp(4, hidden=[32], latent=2)
    >>> history = vae.fit(x, epochs=40, batch_size=32, lr=0.01, verbose=False)
    >>> vae.encode(x).shape, vae.sample(3).shape
    ((256, 2), (3, 4))
    >>> bool(vae.bound(x) > -4 * np.log(2))  # better than coins
    True
    """

    _code, _each = 20, 2

    def __init__(
        self, encoder: Module, decoder: Module, latent: int, output: str = "bernoulli",
        std: float = 1.0, beta: float = 1.0, free_bits: float = 0.0, draws: int = 1,
        classes: int = 0,
    ):  # fmt: skip
        check_whole("VAE", 1, latent=latent, draws=draws)
        check_whole("VAE", 0, classes=classes)
        check_numbers("VAE", beta=beta, free_bits=free_bits)
        if beta < 0 or free_bits < 0:
            raise OptionError(f"VAE: expected beta and free_bits >= 0, got {beta} and {free_bits}")
        if draws > 1 and (beta != 1 or free_bits):
            raise OptionError(
                "VAE: expected beta=1 and free_bits=0 with several draws, whose bound has no "
                f"divergence of its own, got {beta} and {free_bits}"
            )
        self.encoder, self.decoder, self.latent = encoder, decoder, int(latent)
        self.output = Output(output, std, "VAE")
        self.beta, self.free_bits = float(beta), float(free_bits)
        self.draws, self.classes = int(draws), int(classes)

    @classmethod
    def mlp(
        cls, features: int, hidden: Sequence[int] = (400,), latent: int = 20, *,
        activation: type[Module] = ReLU, classes: int = 0, **options: Any,
    ) -> VAE:  # fmt: skip
        """A VAE of fully connected layers: `hidden` from data to codes, the reverse from codes to
        data.

        Args:
            features: numbers in a sample, of shape (features,).
            hidden: units of the encoder's layers.
            latent, classes, options: as for the class.
            activation: of the hidden layers.
        """
        check_whole("VAE", 1, features=features, latent=latent)
        check_hidden("VAE", hidden)
        check_whole("VAE", 0, classes=classes)
        sizes = [features + classes, *hidden]
        encoder = [*_layers(sizes, activation), Linear(sizes[-1], 2 * latent)]
        sizes = [latent + classes, *reversed(hidden)]
        decoder = [*_layers(sizes, activation), Linear(sizes[-1], features)]
        parts: list[Module] = [Sequential(*encoder), Sequential(*decoder)]
        if classes:
            parts = [Joined(part) for part in parts]
        return cls(parts[0], parts[1], latent, classes=classes, **options)

    @classmethod
    def _of(cls, encoder: Module, decoder: Module, latent: int, options: dict[str, Any]) -> VAE:
        return cls(encoder, decoder, latent, **options)

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, x: Value, y: Value | None = None) -> Value:
        return self._posterior(x, self._condition(x, y))[0]

    def _condition(self, x: Value, y: Value | None) -> tuple[Value, ...]:
        """What encoder and decoder get beside their input."""
        if (y is not None) != bool(self.classes):
            wanted = f"class numbers below {self.classes}" if self.classes else "no class numbers"
            raise ShapeError(
                f"{where(x.graph.scope)}VAE: expected {wanted}, got "
                f"{'none' if y is None else 'some'}; a conditional VAE has classes=..."
            )
        return () if y is None else (one_hot(y, self.classes),)

    def _posterior(self, x: Value, condition: tuple[Value, ...]) -> tuple[Value, Value]:
        """mu and log sigma^2, each of shape (batch, L)."""
        found = self.encoder(x, *condition)
        if found.shape != (x.shape[0], 2 * self.latent):
            raise ShapeError(
                f"{where(x.graph.scope)}VAE: expected the encoder's output to have shape (batch, "
                f"{2 * self.latent}), mean and log variance of {self.latent} numbers, got "
                f"{found.shape}; change its last layer"
            )
        return found[:, : self.latent], found[:, self.latent :]

    def _decoded(self, z: Value, condition: tuple[Value, ...]) -> Value:
        result: Value = self.decoder(z, *condition)
        return result

    def terms(self, x: Value, y: Value | None = None) -> dict[str, Value]:
        """For a forward or a loss of your own: "reconstruction", -log p(x | z) of one drawn code,
        shape (batch,), and "divergence" of each number of the code, shape (batch, L)."""
        condition = self._condition(x, y)
        mu, log_var = self._posterior(x, condition)
        z = ops.add(mu, ops.multiply(ops.exp(ops.affine(log_var, 0.5, 0.0)), ops.normal_like(mu)))
        apart = self.output.nats(self._decoded(z, condition), x)
        spread = ops.subtract(ops.exp(log_var), ops.add(log_var, 1.0))
        return {
            "reconstruction": apart,
            "divergence": ops.affine(ops.add(ops.square(mu), spread), 0.5, 0.0),
        }

    def log_weights(self, x: Value, y: Value | None = None) -> Value:
        """log p(x, z) / q(z | x) of `draws` codes of each sample, shape (batch, draws)."""
        condition, draws, batch = self._condition(x, y), self.draws, x.shape[0]
        mu, log_var = self._posterior(x, condition)
        mu, log_var = (ops.reshape(v, (batch, 1, self.latent)) for v in (mu, log_var))
        e = ops.normal_like(ops.expand(mu, (batch, draws, self.latent)))
        z = ops.add(mu, ops.multiply(ops.exp(ops.affine(log_var, 0.5, 0.0)), e))
        # the constants of both normal distributions cancel
        ratio = ops.subtract(ops.add(ops.square(e), log_var), ops.square(z))
        flat = ops.reshape(z, (batch * draws, self.latent))
        decoded = self._decoded(flat, tuple(_repeated(c, draws) for c in condition))
        apart = ops.reshape(self.output.nats(decoded, x, draws), (batch, draws))
        return ops.subtract(ops.affine(ops.sum(ratio, axis=-1), 0.5, 0.0), apart)

    def _weight_sum(self, x: Value, y: Value | None = None) -> Value:
        return ops.logsumexp(self.log_weights(x, y), axis=1)

    def _mean(self, z: Value, y: Value | None = None) -> Value:
        return self.output.mean(self._decoded(z, self._condition(z, y)))

    def _reconstruction(self, x: Value, y: Value | None = None) -> Value:
        condition = self._condition(x, y)
        return self.output.mean(self._decoded(self._posterior(x, condition)[0], condition))

    # ---------------------------------------------------------------- of arrays

    def encode(self, x: Any, y: Any = None, batch_size: int = 256) -> np.ndarray:
        """The codes' means, shape (samples, L), of data with class numbers y where there are
        classes."""
        found: np.ndarray = self.predict(*_given(x, y), batch_size=batch_size)
        return found

    def decode(self, z: Any, y: Any = None, batch_size: int = 256) -> np.ndarray:
        """The data's mean for codes z of shape (samples, L)."""
        found: np.ndarray = apply(self, "_mean", *_given(z, y), batch_size=batch_size)
        return found

    def reconstruct(self, x: Any, y: Any = None, batch_size: int = 256) -> np.ndarray:
        """The data's mean for the mean codes of data."""
        found: np.ndarray = apply(self, "_reconstruction", *_given(x, y), batch_size=batch_size)
        return found

    def sample(self, count: int = 1, y: Any = None, seed: int = 0) -> np.ndarray:
        """New data: the mean for codes that are drawn from N(0, I), shape (count, ...).

        Args:
            count: how many.
            y: of a conditional VAE, a class number or `count` of them.
            seed: of the codes.
        """
        codes = noise(count, self.latent, seed)
        return self.decode(codes, None if y is None else stacked(y, count))

    def bound(
        self, x: Any, y: Any = None, draws: int = 1, seed: int = 0, batch_size: int = 1000
    ) -> float:
        """The lower bound of log p(x) on data, in nats a sample, with beta 1.

        Args:
            x: data of shape (samples, ...).
            y: class numbers of a conditional VAE.
            draws: K, codes drawn of each sample: 1 is the evidence's lower bound; the larger K, the
                closer is the bound to log p(x) (Burda et al. 2016). A model that trains with
                several draws makes a multiple of them.
            seed: of the codes.
            batch_size: samples computed at a time.

        Raises OptionError for `draws` or a batch size below 1; DataError for no samples, NaN or
        infinity.
        """
        check_whole("bound", 1, draws=draws, batch_size=batch_size)
        check_whole("bound", 0, seed=seed)
        self.output.check(x)
        data = [numbers(a, name) for a, name in zip(_given(x, y), "xy", strict=False)]
        if data[0].size == 0 or not np.isfinite(data[0]).all():
            raise DataError(
                "x: expected finite numbers of at least one sample, got "
                f"{'none' if data[0].size == 0 else 'NaN or infinity'}; clean the data"
            )
        rounds = -(-draws // self.draws)
        sampler, step, total = Sampler(self, "_weight_sum", seed), 0, 0.0
        for begin in range(0, len(data[0]), batch_size):
            part = [a[begin : begin + batch_size] for a in data]
            found = np.full(len(part[0]), -np.inf)
            for _ in range(rounds):
                step += 1
                found = np.logaddexp(found, np.asarray(sampler(step, *part), np.float64))
            total += float((found - np.log(rounds * self.draws)).sum())
        return total / len(data[0])

    def trainer(self, *, optimizer: Any = None, lr: Any = None, **options: Any) -> Trainer:
        """The trainer of the bound; its metrics are the two parts, in nats a sample.

        Args:
            optimizer: as for `Trainer`; None is Adam with `lr`.
            lr: its learning rate; None is 1e-3. Another optimizer has its own.
            options: as for `Trainer`.
        """
        optimizer = given_or_default(f"{type(self).__name__}.trainer", optimizer, optim.Adam, lr=lr)
        metrics = []
        if self.draws == 1:
            metrics = [Metric("reconstruction", _reconstruction), Metric("divergence", _divergence)]
        return Trainer(Bound(self), mean_loss, optimizer, metrics, **options)

    def fit(
        self, x: Any, y: Any = None, *, epochs: int = 10, batch_size: int = 100,
        verbose: bool = True, callbacks: Any = (), validation: Any = None, resume: Any = None,
        **options: Any,
    ) -> History:  # fmt: skip
        """Learn from data.

        Args:
            x: data of shape (samples, ...).
            y: class numbers, for a conditional VAE.
            epochs, batch_size, verbose, callbacks, resume: as for `Trainer.fit`.
            validation: held-out data, (x, y) for a conditional VAE. Their loss is the bound with
                beta 1, of one code drawn for each sample, or `draws`.
            options: as for `trainer`.

        Returns:
            The history: "loss" in nats a sample, and with one draw its parts "reconstruction" and
            "divergence".

        Raises DataError if a conditional VAE's `validation` is no pair.
        """
        self.output.check(x)
        if validation is not None:
            if y is not None and not (
                isinstance(validation, (tuple, list)) and len(validation) == 2
            ):
                raise DataError(
                    "validation: expected a pair (x, y) for a conditional VAE, got "
                    f"{type(validation).__name__}"
                )
            data = validation if y is None else validation[0]
            self.output.check(data, "validation")
            validation = (data if y is None else tuple(validation), data)
        inputs = _given(x, y)
        return self.trainer(**options).fit(
            inputs if y is not None else x, x, epochs=epochs, batch_size=batch_size,
            verbose=verbose, callbacks=callbacks, validation=validation, resume=resume,
        )  # fmt: skip

    def extra(self) -> str:
        return f"{self.latent}, {self.output.kind}"


class Bound(Module):
    """What is trained: the negative bound of each sample.

    Args:
        vae: the model.
    """

    def __init__(self, vae: VAE):
        self.vae = vae

    def forward(self, x: Value, y: Value | None = None) -> dict[str, Value]:
        vae = self.vae
        if vae.draws > 1:
            return {"loss": ops.affine(vae._weight_sum(x, y), -1.0, float(np.log(vae.draws)))}
        terms = vae.terms(x, y)
        divergence = ops.sum(terms["divergence"], axis=-1)
        pressed = divergence
        if x.graph.training:
            if vae.free_bits:
                each = ops.maximum(ops.mean(terms["divergence"], axis=0), vae.free_bits)
                pressed = ops.sum(each)
            pressed = ops.affine(pressed, vae.beta, 0.0)
        return {
            "loss": ops.add(terms["reconstruction"], pressed),
            "reconstruction": ops.detach(terms["reconstruction"]),
            "divergence": ops.detach(divergence),
        }


def _layers(sizes: Sequence[int], activation: type[Module]) -> list[Module]:
    found: list[Module] = []
    for inputs, units in itertools.pairwise(sizes):
        found += [Linear(inputs, units), activation()]
    return found


def _given(x: Any, y: Any) -> tuple[Any, ...]:
    return (x,) if y is None else (x, y)


def _repeated(rows: Value, count: int) -> Value:
    """Each row so many times, one after the other."""
    if count == 1:
        return rows
    batch, size = rows.shape
    wide = ops.expand(ops.reshape(rows, (batch, 1, size)), (batch, count, size))
    return ops.reshape(wide, (batch * count, size))


def _reconstruction(output: dict[str, Value], target: Any) -> Value:
    return output["reconstruction"]


def _divergence(output: dict[str, Value], target: Any) -> Value:
    return output["divergence"]

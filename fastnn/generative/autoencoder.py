"""Autoencoders: plain, denoising, sparse, contractive, convolutional."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, where
from fastnn.generative.convolutional import Halves
from fastnn.generative.outputs import Output, check_hidden, sum_from
from fastnn.graph.value import Value
from fastnn.nn.activation import ReLU
from fastnn.nn.containers import Sequential
from fastnn.nn.linear import Linear
from fastnn.nn.method import apply
from fastnn.nn.module import Module
from fastnn.train.unlabelled import Reconstructing


class Autoencoder(Reconstructing, Halves):
    """Learns a code from which data can be reconstructed: ``decoder(encoder(x))`` is compared with
    x.

    As a layer it returns the code, so ``Sequential(autoencoder.encoder, nn.Linear(..., 10))`` is a
    classifier that starts from what was learned without labels.

    Args:
        encoder: a module, from data to codes, shape (batch, ...).
        decoder: a module, from codes to the data's shape.
        output: "gaussian" (the loss is half the squared distance, plus log(2 pi) / 2 for each
            number) or "bernoulli" (the decoder's output are logits, the loss is the cross entropy;
            data within 0..1). Both are summed over a sample.
        corruption: a denoising autoencoder (Vincent et al. 2008): the share of a sample's numbers
            that are set to 0 before they are encoded.
        sparsity: a sparse one: the factor of the code's L1 norm in the loss.
        contraction: a contractive one (Rifai et al. 2011): the factor of the squared Frobenius norm
            of the code's Jacobian. It is estimated in each step from one random direction v, as
            E |J^T v|^2 = |J|_F^2 for v ~ N(0, I) (Hutchinson 1990), for an encoder of any kind.

    Raises OptionError for a `corruption` outside [0, 1), a negative `sparsity` or `contraction`.

    >>> import numpy as np
    >>> from fastnn.generative import Autoencoder
    >>> x = np.random.default_rng(0).normal(size=(256, 2)) @ np.ones((2, 6))
    >>> model = Autoencoder.mlp(6, hidden=[16], latent=2)
    >>> history = model.fit(x, epochs=30, batch_size=32, lr=0.01, verbose=False)
    >>> model.encode(x).shape, bool(history["reconstruction_error"][-1] < 0.2)
    ((256, 2), True)
    """

    def __init__(
        self, encoder: Module, decoder: Module, output: str = "gaussian", corruption: float = 0.0,
        sparsity: float = 0.0, contraction: float = 0.0,
    ):  # fmt: skip
        check_numbers(
            "Autoencoder", corruption=corruption, sparsity=sparsity, contraction=contraction
        )
        if not 0 <= corruption < 1:
            raise OptionError(f"Autoencoder: expected corruption in [0, 1), got {corruption}")
        if sparsity < 0 or contraction < 0:
            raise OptionError(
                f"Autoencoder: expected sparsity and contraction >= 0, got {sparsity} and "
                f"{contraction}"
            )
        self.encoder, self.decoder = encoder, decoder
        self.output = Output(output, 1.0, "Autoencoder")
        self.corruption, self.sparsity = float(corruption), float(sparsity)
        self.contraction = float(contraction)

    @classmethod
    def mlp(
        cls, features: int, hidden: Sequence[int] = (128,), latent: int = 30, *,
        activation: type[Module] = ReLU, **options: Any,
    ) -> Autoencoder:  # fmt: skip
        """An autoencoder of fully connected layers: `hidden` from data to codes, the reverse from
        codes to data; the code itself is linear.

        Args:
            features: numbers in a sample, of shape (features,).
            hidden: units of the encoder's layers.
            latent: the size of a code.
            activation: of the hidden layers.
            options: as for the class.

        Raises OptionError for sizes below 1.
        """
        check_whole("Autoencoder", 1, features=features, latent=latent)
        check_hidden("Autoencoder", hidden)
        sizes = [features, *hidden, latent]
        return cls(_chain(sizes, activation), _chain(sizes[::-1], activation), **options)

    @classmethod
    def _of(
        cls, encoder: Module, decoder: Module, latent: int, options: dict[str, Any]
    ) -> Autoencoder:
        return cls(encoder, decoder, **options)

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, x: Value) -> Value:
        result: Value = self.encoder(x)
        return result

    def _decoded(self, code: Value) -> Value:
        return self.output.mean(self.decoder(code))

    def _reconstruction(self, x: Value) -> Value:
        return self._decoded(self.encoder(x))

    # ---------------------------------------------------------------- of arrays

    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Codes of data."""
        found: np.ndarray = self.predict(x, batch_size=batch_size)
        return found

    def decode(self, code: Any, batch_size: int = 256) -> np.ndarray:
        """Data from codes (`code`)."""
        found: np.ndarray = apply(self, "_decoded", code, batch_size=batch_size)
        return found

    def reconstruct(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The reconstruction of data."""
        found: np.ndarray = apply(self, "_reconstruction", x, batch_size=batch_size)
        return found

    # ---------------------------------------------------------------- training

    def _trained(self) -> Module:
        return Reconstruction(self)

    def _check_data(self, x: Any, name: str) -> None:
        self.output.check(x, name)

    def extra(self) -> str:
        return self.output.kind


class Reconstruction(Module):
    """What is trained: the loss of each sample.

    Args:
        model: the autoencoder.
    """

    def __init__(self, model: Autoencoder):
        self.model = model

    def forward(self, x: Value) -> dict[str, Value]:
        model, training = self.model, x.graph.training
        damaged = ops.dropout(x, model.corruption, 1.0) if training and model.corruption else x
        code = model.encoder(damaged)
        if code.ndim < 2 or code.shape[0] != x.shape[0]:
            raise ShapeError(
                f"{where(x.graph.scope)}Autoencoder: expected codes of shape (batch, ...), got "
                f"{code.shape}"
            )
        z = model.decoder(code)
        loss = model.output.nats(z, x)
        if training and model.sparsity:
            size = sum_from(ops.absolute(code), 1)
            loss = ops.add(loss, ops.affine(size, model.sparsity, 0.0))
        if training and model.contraction:
            pulled = ops.gradient(code, damaged, ops.normal_like(code))
            loss = ops.add(
                loss, ops.affine(sum_from(ops.square(pulled), 1), model.contraction, 0.0)
            )
        apart = ops.subtract(ops.detach(x), ops.detach(model.output.mean(z)))
        error = ops.mean(ops.square(apart), axis=tuple(range(1, apart.ndim)))
        return {"loss": loss, "error": error}


def _chain(sizes: Sequence[int], activation: type[Module]) -> Sequential:
    layers: list[Module] = []
    for inputs, units in itertools.pairwise(sizes):
        layers += [Linear(inputs, units), activation()]
    return Sequential(*layers[:-1])

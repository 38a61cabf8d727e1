"""Convolutional halves of models of images: from images to numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from fastnn.errors import OptionError, check_whole, is_whole
from fastnn.nn.activation import ReLU
from fastnn.nn.channels import BatchNorm2d
from fastnn.nn.containers import Sequential
from fastnn.nn.convolution import Conv2d, ConvTranspose2d
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.nn.regularization import BatchNorm
from fastnn.nn.shape import Flatten, Reshape

#: of each convolution, whose stride is 2: every pixel is in four windows
WINDOW: dict[str, Any] = dict(kernel_size=4, stride=2, padding=1)


Halved = TypeVar("Halved", bound="Halves")


class Halves(Module):
    """A model with an encoder and a decoder, which of images can be convolutional."""

    #: numbers of a code by default, and how many the encoder has for each of them
    _code, _each = 30, 1

    @classmethod
    def convolutional(
        cls: type[Halved], shape: Sequence[int], channels: Sequence[int] = (32, 64),
        latent: int | None = None, *, activation: type[Module] = ReLU, batch_norm: bool = True,
        **options: Any,
    ) -> Halved:  # fmt: skip
        """A model of images (Masci et al. 2011): `conv_encoder` and `conv_decoder`.

        Args:
            shape: (C, H, W) of an image.
            channels: of the encoder's convolutions.
            latent: the size of a code; None: that of `mlp`.
            activation, batch_norm: as of `conv_encoder`.
            options: as for the class, without `classes`.

        Raises OptionError for `classes`, which these nets have no input for, for sizes below 1, and
        for images that are too small to be halved so often.
        """
        who, latent = cls.__name__, cls._code if latent is None else latent
        if options.get("classes"):
            raise OptionError(
                f"{who}.convolutional: expected no classes, which its nets have no input for, got "
                f"{options['classes']}; build both nets yourself"
            )
        check_whole(who, 1, latent=latent)
        more: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
        encoder = conv_encoder(shape, channels, cls._each * latent, **more)
        return cls._of(encoder, conv_decoder(latent, channels, shape, **more), latent, options)

    @classmethod
    def _of(
        cls: type[Halved], encoder: Module, decoder: Module, latent: int, options: dict[str, Any]
    ) -> Halved:
        """The model of these two, with codes of so many numbers."""
        raise NotImplementedError


def conv_encoder(
    shape: Sequence[int], channels: Sequence[int] = (32, 64), outputs: int = 30, *,
    hidden: int = 0, activation: Any = ReLU, batch_norm: bool = True, weight_init: Any = None,
) -> Sequential:  # fmt: skip
    """From images to numbers: convolutions of 4×4 with stride 2, each of which halves height and
    width, and a linear layer.

    Args:
        shape: (C, H, W) of an image.
        channels: of the convolutions, the first one first.
        outputs: numbers for an image.
        hidden: units of one more linear layer after the convolutions, which sees the whole image;
            0 is none.
        activation: makes the layer after each convolution and these units.
        batch_norm: whether a `BatchNorm2d` (of the units a `BatchNorm`) stands before each
            activation but the first (Radford et al. 2016).
        weight_init: as of `Conv2d`, of all weights.

    Raises OptionError for images that are too small to be halved so often.

    >>> import numpy as np
    >>> from fastnn.generative import conv_encoder
    >>> conv_encoder((1, 28, 28), (8, 16), 10).predict(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    """
    check_whole("conv_encoder", 0, hidden=hidden)
    sizes = _sizes("conv_encoder", shape, channels, outputs)
    layers: list[Module] = []
    inputs = shape[0]
    for number, count in enumerate(channels):
        layers.append(Conv2d(inputs, count, **WINDOW, weight_init=weight_init))
        if batch_norm and number:
            layers.append(BatchNorm2d(count))
        layers.append(activation())
        inputs = count
    inputs *= math.prod(sizes[-1])
    layers.append(Flatten())
    if hidden:
        layers.append(Linear(inputs, hidden, weight_init=weight_init))
        layers += [*([BatchNorm(hidden)] if batch_norm else []), activation()]
        inputs = hidden
    return Sequential(*layers, Linear(inputs, outputs, weight_init=weight_init))


def conv_decoder(
    inputs: int, channels: Sequence[int] = (32, 64), shape: Sequence[int] = (1, 28, 28), *,
    hidden: int = 0, activation: Any = ReLU, batch_norm: bool = True, weight_init: Any = None,
) -> Sequential:  # fmt: skip
    """From numbers to images, the reverse of `conv_encoder`: a linear layer, and transposed
    convolutions of 4×4 with stride 2.

    Args:
        inputs: numbers for an image.
        channels: as of the encoder, so the last one comes first here.
        shape: (C, H, W) of an image.
        hidden: units of one more linear layer before the other one; 0 is none.
        activation: makes the layer after each linear layer and each convolution but the last.
        batch_norm: whether a `BatchNorm2d` (of the units a `BatchNorm`) stands before each of these
            activations.
        weight_init: as of `Conv2d`, of all weights.

    Raises OptionError for images that are too small to be halved so often.

    >>> import numpy as np
    >>> from fastnn.generative import conv_decoder
    >>> conv_decoder(10, (8, 16), (3, 28, 21)).predict(np.zeros((2, 10), np.float32)).shape
    (2, 3, 28, 21)
    """
    check_whole("conv_decoder", 0, hidden=hidden)
    sizes = _sizes("conv_decoder", shape, channels, inputs)
    count, (height, width) = channels[-1], sizes[-1]

    def ended(layer: Module, number: int, norm: Any = BatchNorm2d) -> list[Module]:
        return [layer, *([norm(number)] if batch_norm else []), activation()]

    layers: list[Module] = []
    if hidden:
        layers += ended(Linear(inputs, hidden, weight_init=weight_init), hidden, BatchNorm)
        inputs = hidden
    layers += [
        Linear(inputs, count * height * width, weight_init=weight_init),
        *ended(Reshape(count, height, width), count),
    ]
    for number in reversed(range(len(channels))):
        outputs = channels[number - 1] if number else shape[0]
        odd = (sizes[number][0] % 2, sizes[number][1] % 2)
        layer = ConvTranspose2d(
            count, outputs, **WINDOW, output_padding=odd, weight_init=weight_init
        )
        layers += ended(layer, outputs) if number else [layer]
        count = outputs
    return Sequential(*layers)


def check_image(who: str, shape: Any, channels: Any) -> None:
    """Raise OptionError unless images of this shape can be halved by so many convolutions."""
    for name, value in (("shape", shape), ("channels", channels)):
        fits = isinstance(value, (tuple, list)) and all(is_whole(n, 1) for n in value)
        if not fits or (name == "shape" and len(value) != 3) or not value:
            wanted = "(C, H, W)" if name == "shape" else "channels of layers, as (32, 64)"
            raise OptionError(f"{who} {name}: expected {wanted}, got {value!r}")
    if min(shape[1:]) < 2 ** len(channels):
        raise OptionError(
            f"{who}: expected images of at least {2 ** len(channels)} rows and columns for "
            f"{len(channels)} convolutions, each of which halves them, got {tuple(shape)}; give "
            "fewer channels"
        )


def _sizes(who: str, shape: Any, channels: Any, numbers: int) -> list[tuple[int, int]]:
    """Height and width before the first convolution, and after each."""
    check_image(who, shape, channels)
    if not is_whole(numbers, 1):
        raise OptionError(f"{who}: expected a whole number of numbers >= 1, got {numbers!r}")
    return [(shape[1] >> k, shape[2] >> k) for k in range(len(channels) + 1)]

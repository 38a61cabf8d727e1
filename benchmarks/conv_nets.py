"""One description of a convolutional net, as a list of layers, in fastnn, PyTorch and JAX.

A layer is its name and its sizes, as PyTorch's layers take them: ``("conv", 1, 6, 5, {"padding":
2})``. Parameters have PyTorch's names in all three, so that they start from the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Layer = tuple[Any, ...]
Shape = tuple[int, ...]
State = dict[str, np.ndarray]

#: LeCun et al. 1998, with maxima and ReLU, on 28 x 28
LENET: list[Layer] = [
    ("conv", 1, 6, 5, {"padding": 2}), ("relu",), ("max", 2), ("conv", 6, 16, 5, {}), ("relu",),
    ("max", 2), ("flatten",), ("linear", 400, 120), ("relu",), ("linear", 120, 84), ("relu",),
    ("linear", 84, 10),
]  # fmt: skip


def keyword(channels: int = 64) -> list[Layer]:
    """A depthwise-separable net for keywords (Zhang et al. 2017), of 49 frames of 10 features."""

    def normed(layer: Layer) -> list[Layer]:
        return [layer, ("norm", channels), ("relu",)]

    layers = normed(("conv", 1, channels, (10, 4), {"stride": 2, "padding": (5, 1)}))
    for _ in range(4):
        layers += normed(("conv", channels, channels, 3, {"padding": 1, "groups": channels}))
        layers += normed(("conv", channels, channels, 1, {}))
    return [*layers, ("mean",), ("linear", channels, 12)]


def raw_audio(channels: Sequence[int] = (64, 64, 128, 256)) -> list[Layer]:
    """Four convolutions of raw samples, on images of one line."""
    layers: list[Layer] = []
    last = 1
    for number, count in enumerate(channels):
        kernel, stride = ((1, 80), (1, 4)) if number == 0 else ((1, 3), 1)
        layers += [
            ("conv", last, count, kernel, {"stride": stride}), ("norm", count), ("relu",),
            ("max", (1, 4)),
        ]  # fmt: skip
        last = count
    return [*layers, ("mean",), ("linear", last, 10)]


def pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


# ---------------------------------------------------------------- counting


def work(layers: Sequence[Layer], shape: Shape) -> list[int]:
    """Multiply-adds of each layer with weights, for one sample of this shape (channels first)."""
    counts = []
    for layer in layers:
        kind = layer[0]
        if kind == "linear":
            counts.append(layer[1] * layer[2])
            shape = (layer[2],)
        elif kind in ("conv", "convt"):
            (kh, kw), options = pair(layer[3]), layer[4]
            (sh, sw), (ph, pw) = pair(options.get("stride", 1)), pair(options.get("padding", 0))
            if kind == "conv":
                places = (shape[1] + 2 * ph - kh) // sh + 1, (shape[2] + 2 * pw - kw) // sw + 1
                out = places
            else:
                places = shape[1], shape[2]
                out = (places[0] - 1) * sh - 2 * ph + kh, (places[1] - 1) * sw - 2 * pw + kw
            group = layer[1] // options.get("groups", 1)
            counts.append(math.prod(places) * kh * kw * group * layer[2])
            shape = (layer[2], *out)
        elif kind == "max":
            kh, kw = pair(layer[1])
            shape = (shape[0], shape[1] // kh, shape[2] // kw)
        elif kind == "mean":
            shape = shape[:1]
        elif kind == "reshape":
            shape = layer[1:]
        elif kind == "flatten":
            shape = (math.prod(shape),)
    return counts


def step_work(layers: Sequence[Layer], shape: Shape) -> int:
    """Of a training step, forward and both gradients, without that to the net's input."""
    counts = work(layers, shape)
    return 3 * sum(counts) - counts[0]


# ---------------------------------------------------------------- the three libraries


def ours(layers: Sequence[Layer]) -> Any:
    from fastnn import nn

    def made(layer: Layer) -> Any:
        kind, sizes = layer[0], layer[1:]
        if kind in ("conv", "convt"):
            maker = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
            return maker(*sizes[:3], **sizes[3])
        return {
            "relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.2), "max": nn.MaxPool2d,
            "mean": nn.GlobalAvgPool2d, "flatten": nn.Flatten, "linear": nn.Linear,
            "norm": nn.BatchNorm2d, "reshape": nn.Reshape, "sigmoid": nn.Sigmoid,
        }[kind](*sizes)  # fmt: skip

    return nn.Sequential(*[made(layer) for layer in layers])


def torch_net(layers: Sequence[Layer]) -> Any:
    from torch import nn

    def made(layer: Layer) -> Any:
        kind, sizes = layer[0], layer[1:]
        if kind in ("conv", "convt"):
            maker = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
            return maker(*sizes[:3], **sizes[3])
        if kind == "mean":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return {
            "relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.2), "max": nn.MaxPool2d,
            "flatten": nn.Flatten, "linear": nn.Linear, "norm": nn.BatchNorm2d,
            "reshape": lambda *shape: nn.Unflatten(1, shape), "sigmoid": nn.Sigmoid,
        }[kind](*sizes)  # fmt: skip

    return nn.Sequential(*[made(layer) for layer in layers])


def numbers(net: Any) -> State:
    """The parameters and buffers of a module of PyTorch, for the other two."""
    return {
        name: value.detach().numpy().copy() for name, value in net.state_dict().items()
        if "num_batches" not in name
    }  # fmt: skip


def jax_parameters(state: State) -> dict[str, Any]:
    import jax.numpy as jnp

    return {n: jnp.asarray(v) for n, v in state.items() if "running" not in n}


def jax_net(layers: Sequence[Layer], p: dict[str, Any], x: Any, name: str = "") -> Any:
    """The net's outputs; images (N, H, W, C). Statistics over time are not kept."""
    import jax
    import jax.numpy as jnp

    for number, layer in enumerate(layers):
        kind, at = layer[0], f"{name}{number}."
        if kind == "conv":
            o = layer[4]
            padding = [(n, n) for n in pair(o.get("padding", 0))]
            x = jax.lax.conv_general_dilated(
                x, p[at + "weight"].transpose(2, 3, 1, 0), pair(o.get("stride", 1)), padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=o.get("groups", 1),
            ) + p[at + "bias"]  # fmt: skip
        elif kind == "convt":
            k, o = pair(layer[3]), layer[4]
            padding = [(k[d] - 1 - pair(o["padding"])[d],) * 2 for d in range(2)]
            x = jax.lax.conv_general_dilated(
                x, p[at + "weight"][:, :, ::-1, ::-1].transpose(2, 3, 0, 1), (1, 1), padding,
                lhs_dilation=pair(o["stride"]), dimension_numbers=("NHWC", "HWIO", "NHWC"),
            ) + p[at + "bias"]  # fmt: skip
        elif kind == "linear":
            x = x @ p[at + "weight"].T + p[at + "bias"]
        elif kind == "norm":
            axes = tuple(range(x.ndim - 1))
            mean, var = x.mean(axes), x.var(axes)
            x = (x - mean) * (p[at + "weight"] * jax.lax.rsqrt(var + 1e-5)) + p[at + "bias"]
        elif kind == "max":
            window = (1, *pair(layer[1]), 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        elif kind == "mean":
            x = x.mean((1, 2))
        elif kind == "flatten":
            x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        elif kind == "reshape":
            x = x.reshape(-1, *layer[1:]).transpose(0, 2, 3, 1)
        else:
            x = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid,
                 "leaky": lambda v: jax.nn.leaky_relu(v, 0.2)}[kind](x)  # fmt: skip
    return x

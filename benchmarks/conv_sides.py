"""Training steps with Adam of the convolution benchmark's nets, in fastnn, PyTorch and JAX.

A side is a function that makes one step and returns its loss. All sides of a workload begin with
the same parameters and get the same mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import conv_nets as nets
from fastnn import optim

Step = Callable[[], float]
Sides = dict[str, Callable[[], Step]]  # makers, as each keeps its memory to itself


def torch_step(net: Any, loss: Callable[[], Any], compiled: bool = False, adam: Any = None) -> Step:
    """PyTorch's step: `loss` of `net`, its gradient, and Adam."""
    import torch

    optimizer = adam or torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def gradient() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value.detach()

    run = torch.compile(gradient) if compiled else gradient

    def step() -> float:
        value = run()
        optimizer.step()
        return float(value)

    return step


def jax_step(
    loss: Callable[..., Any], parameters: dict[str, Any], given: Sequence[Any],
    gradient: Callable[..., Any] | None = None, betas: tuple[float, float] = (0.9, 0.999),
    lr: float = 1e-3,
) -> Step:  # fmt: skip
    """JAX's step, one program, in which Adam is written out; `loss` of parameters, a key and
    `given`."""
    import jax
    import jax.numpy as jnp

    gradient = gradient or jax.value_and_grad(loss)
    one, two = betas

    def step(state: Any, *given: Any) -> Any:
        p, m, v, t, key = state
        key, now = jax.random.split(key)
        value, g = gradient(p, now, *given)
        m = jax.tree.map(lambda a, b: one * a + (1 - one) * b, m, g)
        v = jax.tree.map(lambda a, b: two * a + (1 - two) * b * b, v, g)
        rate, root = lr / (1 - one**t), (1 - two**t) ** 0.5

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - rate * m / (jnp.sqrt(v) / root + 1e-8)

        return (jax.tree.map(moved, p, m, v), m, v, t + 1, key), value

    program = jax.jit(step, donate_argnums=0)
    given = [jnp.asarray(a) for a in given]
    zeros = {name: jnp.zeros_like(value) for name, value in parameters.items()}
    held = [(parameters, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(1), jax.random.key(0))]

    def run() -> float:
        held[0], value = program(held[0], *given)
        return float(value)

    return run


def warm(side: str) -> None:
    """Import what a side needs, and let it make its threads, before memory is measured."""
    if side in ("eager", "channels last", "compiled"):
        import torch

        layer = torch.nn.Conv2d(2, 2, 3)
        layer(torch.zeros(1, 2, 8, 8)).sum().backward()
        torch.optim.Adam(layer.parameters(), fused=True).step()
    if side == "fastnn":
        small = fnn.compile(nets.ours([("linear", 2, 2)]), "mse", optim.Adam(), workers=1)
        small(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))


# ---------------------------------------------------------------- classifiers


def classifier(
    layers: Sequence[nets.Layer], shape: nets.Shape, classes: int, batch: int, threads: int
) -> Sides:
    """A net that is a list of layers, with cross-entropy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape)).astype(np.float32)
    y = rng.integers(0, classes, batch)

    def torch_made() -> Any:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        return nets.torch_net(layers)

    state = nets.numbers(torch_made())

    def with_fastnn() -> Step:
        net = nets.ours(layers)
        net.load_state_dict(state)
        step = fnn.compile(net, "cross_entropy", optim.Adam(lr=1e-3), workers=threads)
        return lambda: float(step(x, y))

    def with_torch(last: bool, compiled: bool) -> Step:
        import torch

        net, inputs, targets = torch_made(), torch.tensor(x), torch.tensor(y)
        if last:
            net = net.to(memory_format=torch.channels_last)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        cross_entropy = torch.nn.functional.cross_entropy
        return torch_step(net, lambda: cross_entropy(net(inputs), targets), compiled)

    def with_jax() -> Step:
        import jax
        import jax.numpy as jnp

        def loss(p: Any, key: Any, x: Any, y: Any) -> Any:
            chosen = jax.nn.log_softmax(nets.jax_net(layers, p, x))
            return -jnp.mean(chosen[jnp.arange(len(y)), y])

        return jax_step(loss, nets.jax_parameters(state), [x.transpose(0, 2, 3, 1), y])

    return {
        "fastnn": with_fastnn, "eager": lambda: with_torch(False, False),
        "channels last": lambda: with_torch(True, False),
        "compiled": lambda: with_torch(True, True), "JAX": with_jax,
    }  # fmt: skip


# ---------------------------------------------------------------- a single convolution


def _arrays(sizes: tuple[int, int, int], batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, gradient to the outputs and weights for C, K, and the side of the image."""
    c, k, side = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, c, side, side)).astype(np.float32)
    dy = rng.standard_normal((batch, k, side, side)).astype(np.float32)
    return x, dy, rng.standard_normal((k, c, 3, 3)).astype(np.float32) * np.float32(0.05)


def _tensors(arrays: tuple[np.ndarray, ...], last: bool, threads: int) -> list[Any]:
    """PyTorch's images, weights and gradient to the outputs; all but the gradient want one."""
    import torch

    torch.set_num_threads(threads)
    form = torch.channels_last if last else torch.contiguous_format
    made = [torch.tensor(a).contiguous(memory_format=form) for a in arrays]
    for tensor in made[:-1]:
        tensor.requires_grad_()
    return made


def whole_convolution(sizes: tuple[int, int, int], batch: int, threads: int) -> Sides:
    """The program whose memory is compared: images that are a parameter, the outputs times an
    array, their sum, and a step of SGD."""
    x, dy, w = _arrays(sizes, batch)

    def with_fastnn() -> Step:
        from benchmarks.conv_calls import whole_step

        return whole_step(x, w, dy, threads)

    def with_torch(last: bool) -> Step:
        import torch

        image, weight, grad = _tensors((x, w, dy), last, threads)
        conv2d, sgd = torch.nn.functional.conv2d, torch.optim.SGD([image, weight], lr=0.0)
        return torch_step(None, lambda: (conv2d(image, weight, padding=1) * grad).sum(), adam=sgd)

    return {
        "fastnn": with_fastnn, "eager": lambda: with_torch(False),
        "channels last": lambda: with_torch(True),
    }  # fmt: skip


def convolution(sizes: tuple[int, int, int], batch: int, threads: int) -> Sides:
    """Forward pass and both gradients of a 3x3 convolution: C, K, and the side of the image."""
    x, dy, w = _arrays(sizes, batch)

    def total(dx: np.ndarray, dw: np.ndarray) -> float:
        return float(abs(dx).mean(dtype=np.float64) + abs(dw).mean(dtype=np.float64))

    def with_fastnn() -> Step:
        from benchmarks.conv_calls import convolution_calls

        run, dx, dw = convolution_calls(x, w, dy, threads)
        found: list[float] = []

        def step() -> float:
            run()
            if not found:
                found.append(total(dx, dw))
            return found[0]

        return step

    def with_torch(last: bool, compiled: bool = False) -> Step:
        import torch

        image, weight, grad = _tensors((x, w, dy), last, threads)
        found: list[float] = []

        def forward(image: Any, weight: Any) -> Any:
            return torch.nn.functional.conv2d(image, weight, padding=1)

        run = torch.compile(forward) if compiled else forward

        def step() -> float:
            image.grad = weight.grad = None
            run(image, weight).backward(grad)
            if not found:
                found.append(total(image.grad.numpy(), weight.grad.numpy()))
            return found[0]

        return step

    def with_jax() -> Step:
        import jax
        import jax.numpy as jnp

        image, grad = (jnp.asarray(a.transpose(0, 2, 3, 1)) for a in (x, dy))
        weight = jnp.asarray(w.transpose(2, 3, 1, 0))

        def forward(x: Any, w: Any) -> Any:
            return jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        def all_three(x: Any, w: Any, dy: Any) -> Any:
            y, back = jax.vjp(forward, x, w)
            return y, *back(dy)

        program = jax.jit(all_three)
        found: list[float] = []

        def step() -> float:
            _, dx, dw = jax.block_until_ready(program(image, weight, grad))
            if not found:
                found.append(total(np.asarray(dx), np.asarray(dw)))
            return found[0]

        return step

    return {
        "fastnn": with_fastnn, "eager": lambda: with_torch(False),
        "channels last": lambda: with_torch(True),
        "compiled": lambda: with_torch(True, compiled=True), "JAX": with_jax,
    }  # fmt: skip

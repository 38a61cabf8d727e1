"""The convolution benchmark's generative models in fastnn, PyTorch and JAX; see `conv_sides`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import conv_nets as nets
from benchmarks.conv_sides import Sides, Step, jax_step, torch_step
from fastnn import ops, optim
from fastnn.generative import GAN, VAE, WaveNet
from fastnn.generative.gan import Players
from fastnn.generative.vae import Bound

# ---------------------------------------------------------------- WaveNet


def wavenet_work(channels: int, skip: int, layers: int, levels: int = 256) -> int:
    """Multiply-adds of a step for one sample of sound; the first layer is a table."""
    stack = layers * 4 * channels**2 + (layers - 1) * channels**2
    return 3 * (stack + layers * channels * skip + skip**2 + skip * levels)


def wavenet(channels: int, skip: int, layers: int, samples: int, batch: int, threads: int) -> Sides:
    levels = 256
    rng = np.random.default_rng(0)
    x = rng.integers(0, levels, (batch, samples))

    def net() -> WaveNet:
        return WaveNet(levels, channels, skip, layers)

    state = {name: np.array(value) for name, value in net().state_dict().items()}
    dilations = [2**k for k in range(layers)]

    def with_fastnn() -> Step:
        model = net()
        model.load_state_dict(state)
        step = fnn.compile(model, model._loss, optim.Adam(lr=1e-3), workers=threads)
        return lambda: float(step(x, x))

    def with_torch(compiled: bool) -> Step:
        import torch
        from torch import nn
        from torch.nn import functional

        torch.set_num_threads(threads)

        class Net(nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.input = nn.Embedding(levels, channels)
                self.gates = nn.ModuleList(
                    [nn.Conv1d(channels, 2 * channels, 2, dilation=d) for d in dilations]
                )
                self.residuals = nn.ModuleList(
                    [nn.Conv1d(channels, channels, 1) for _ in dilations[1:]]
                )
                self.skip = nn.Conv1d(layers * channels, skip, 1)
                self.hidden = nn.Conv1d(skip, skip, 1)
                self.last = nn.Conv1d(skip, levels, 1)

            def forward(self, x: Any) -> Any:
                h = functional.pad(self.input(x).transpose(1, 2), (1, 0))[:, :, :-1]
                units = []
                for k, d in enumerate(dilations):
                    z = self.gates[k](functional.pad(h, (d, 0)))
                    units.append(torch.tanh(z[:, :channels]) * torch.sigmoid(z[:, channels:]))
                    if k < layers - 1:
                        h = h + self.residuals[k](units[-1])
                hidden = torch.relu(self.skip(torch.cat(units, 1)))
                return self.last(torch.relu(self.hidden(hidden)))

        model, given = Net(), torch.tensor(x)
        shapes = {n: v.shape for n, v in model.state_dict().items()}
        model.load_state_dict({n: torch.tensor(v).reshape(shapes[n]) for n, v in state.items()})
        return torch_step(
            model, lambda: functional.cross_entropy(model(given), given), compiled
        )  # fmt: skip

    def with_jax() -> Step:
        import jax
        import jax.numpy as jnp

        def dense(p: Any, name: str, v: Any) -> Any:
            return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]

        def before(v: Any, count: int) -> Any:
            return jnp.pad(v, ((0, 0), (count, 0), (0, 0)))[:, : v.shape[1]]

        def loss(p: Any, key: Any, x: Any) -> Any:
            h = before(p["input.weight"][x], 1)
            units = []
            for k, d in enumerate(dilations):
                w = p[f"gates.{k}.weight"]
                z = before(h, d) @ w[:, :, 0].T + h @ w[:, :, 1].T + p[f"gates.{k}.bias"]
                units.append(jnp.tanh(z[..., :channels]) * jax.nn.sigmoid(z[..., channels:]))
                if k < layers - 1:
                    h = h + dense(p, f"residuals.{k}", units[-1])
            hidden = jax.nn.relu(dense(p, "skip", jnp.concatenate(units, -1)))
            logits = jax.nn.log_softmax(dense(p, "last", jax.nn.relu(dense(p, "hidden", hidden))))
            return -jnp.take_along_axis(logits, x[..., None], -1).mean()

        return jax_step(loss, nets.jax_parameters(state), [x])

    return {"fastnn": with_fastnn, "eager": lambda: with_torch(False),
            "compiled": lambda: with_torch(True), "JAX": with_jax}  # fmt: skip


# ---------------------------------------------------------------- VAE


def vae_layers(inputs: int, hidden: int, latent: int) -> tuple[list[nets.Layer], list[nets.Layer]]:
    encoder = [("linear", inputs, hidden), ("relu",), ("linear", hidden, 2 * latent)]
    return encoder, [("linear", latent, hidden), ("relu",), ("linear", hidden, inputs)]


def vae(inputs: int, hidden: int, latent: int, batch: int, threads: int) -> Sides:
    encoder, decoder = vae_layers(inputs, hidden, latent)
    x = np.random.default_rng(0).random((batch, inputs)).astype(np.float32)

    def torch_made() -> tuple[Any, Any]:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        return nets.torch_net(encoder), nets.torch_net(decoder)

    state = {
        f"{name}.{k}": v for name, net in zip(("encoder", "decoder"), torch_made(), strict=True)
        for k, v in nets.numbers(net).items()
    }  # fmt: skip

    def with_fastnn() -> Step:
        model = VAE(nets.ours(encoder), nets.ours(decoder), latent)
        model.load_state_dict(state)
        step = fnn.compile(Bound(model), lambda out, _: ops.mean(out["loss"]),
                           optim.Adam(lr=1e-3), workers=threads)  # fmt: skip
        return lambda: float(step(x, x))

    def with_torch(compiled: bool) -> Step:
        import torch
        from torch.nn import functional

        one, two = torch_made()
        both, given = torch.nn.ModuleList([one, two]), torch.tensor(x)

        def loss() -> Any:
            mu, log_var = one(given).chunk(2, 1)
            made = two(mu + torch.exp(0.5 * log_var) * torch.randn_like(mu))
            apart = functional.binary_cross_entropy_with_logits(made, given, reduction="sum")
            divergence = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum()
            return (apart + divergence) / batch

        return torch_step(both, loss, compiled)

    def with_jax() -> Step:
        import jax
        import jax.numpy as jnp

        def loss(p: Any, key: Any, x: Any) -> Any:
            code = nets.jax_net(encoder, p, x, "encoder.")
            mu, log_var = code[:, :latent], code[:, latent:]
            z = mu + jnp.exp(0.5 * log_var) * jax.random.normal(key, mu.shape)
            made = nets.jax_net(decoder, p, z, "decoder.")
            apart = (jax.nn.softplus(made) - x * made).sum()
            return (apart + 0.5 * (mu**2 + jnp.exp(log_var) - 1 - log_var).sum()) / len(x)

        return jax_step(loss, nets.jax_parameters(state), [x])

    return {"fastnn": with_fastnn, "eager": lambda: with_torch(False),
            "compiled": lambda: with_torch(True), "JAX": with_jax}  # fmt: skip


# ---------------------------------------------------------------- DCGAN


def gan_layers(channels: tuple[int, int], latent: int) -> tuple[list[nets.Layer], ...]:
    """The generator and the discriminator of `GAN.dcgan` on 28 x 28."""
    first, second = channels
    window: dict[str, Any] = {"stride": 2, "padding": 1}
    generator: list[nets.Layer] = [
        ("linear", latent, second * 49), ("reshape", second, 7, 7), ("norm", second), ("relu",),
        ("convt", second, first, 4, window), ("norm", first), ("relu",),
        ("convt", first, 1, 4, window), ("sigmoid",),
    ]  # fmt: skip
    discriminator: list[nets.Layer] = [
        ("conv", 1, first, 4, window), ("leaky",), ("conv", first, second, 4, window),
        ("norm", second), ("leaky",), ("flatten",), ("linear", second * 49, 1),
    ]  # fmt: skip
    return generator, discriminator


def gan_work(channels: tuple[int, int], latent: int) -> int:
    """Multiply-adds of both players' step for one sample: the generator once, the discriminator on
    real samples, and on made ones for its own gradient and for the generator's."""
    generator, discriminator = gan_layers(channels, latent)
    made, judged = nets.work(generator, (latent,)), nets.work(discriminator, (1, 28, 28))
    own = 3 * sum(judged) - judged[0]
    return 3 * sum(made) - made[0] + 2 * own + 2 * sum(judged)


def dcgan(channels: tuple[int, int], latent: int, batch: int, threads: int) -> Sides:
    layers = gan_layers(channels, latent)
    x = np.random.default_rng(0).random((batch, 1, 28, 28)).astype(np.float32)
    betas, lr = (0.5, 0.999), 2e-4

    def torch_made() -> list[Any]:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        return [nets.torch_net(part) for part in layers]

    state = {
        f"{name}.{k}": v for name, net in zip(("generator", "discriminator"), torch_made(),
                                              strict=True)
        for k, v in nets.numbers(net).items()
    }  # fmt: skip

    def with_fastnn() -> Step:
        model = GAN(*[nets.ours(part) for part in layers], latent)
        model.load_state_dict(state)
        step = fnn.compile(
            Players(model), lambda out, _: ops.add(*[ops.mean(v) for v in out.values()]),
            optim.Adam(lr=lr, betas=betas), workers=threads,
        )  # fmt: skip
        unused = np.zeros(batch, np.float32)
        return lambda: float(step(x, unused))

    def with_torch(last: bool, compiled: bool) -> Step:
        import torch
        from torch.nn.functional import softplus

        nets_made = torch_made()
        given = torch.tensor(x)
        if last:
            nets_made = [net.to(memory_format=torch.channels_last) for net in nets_made]
            given = given.contiguous(memory_format=torch.channels_last)
        generator, judge = nets_made
        weights = [list(net.parameters()) for net in nets_made]

        def gradient() -> Any:
            made = generator(torch.randn(batch, latent))
            own = (softplus(-judge(given)) + softplus(judge(made.detach()))).mean()
            believed = softplus(-judge(made)).mean()
            for loss, mine in ((believed, weights[0]), (own, weights[1])):
                for p, g in zip(mine, torch.autograd.grad(loss, mine), strict=True):
                    p.grad = g
            return (own + believed).detach()

        run: Callable[[], Any] = torch.compile(gradient) if compiled else gradient
        adam = torch.optim.Adam(weights[0] + weights[1], lr=lr, betas=betas, fused=True)

        def step() -> float:
            value = run()
            adam.step()
            return float(value)

        return step

    def with_jax() -> Step:
        import jax

        def losses(own: Any, other: Any, key: Any, x: Any, mine: str) -> Any:
            p = {"generator": other, "discriminator": own}
            if mine == "generator":
                p = {"generator": own, "discriminator": other}
            z = jax.random.normal(key, (batch, latent))
            made = nets.jax_net(layers[0], p["generator"], z)

            def judged(v: Any) -> Any:
                return nets.jax_net(layers[1], p["discriminator"], v)

            if mine == "generator":
                return jax.nn.softplus(-judged(made)).mean()
            return (jax.nn.softplus(-judged(x)) + jax.nn.softplus(judged(made))).mean()

        def gradient(p: Any, key: Any, x: Any) -> Any:
            parts = {
                name: {k.split(".", 1)[1]: v for k, v in p.items() if k.startswith(name)}
                for name in ("generator", "discriminator")
            }
            found, total = {}, 0.0
            for mine, other in (("generator", "discriminator"), ("discriminator", "generator")):
                loss, g = jax.value_and_grad(losses)(parts[mine], parts[other], key, x, mine)
                total = total + loss
                found.update({f"{mine}.{k}": v for k, v in g.items()})
            return total, found

        given = [x.transpose(0, 2, 3, 1)]
        parameters = nets.jax_parameters(state)
        return jax_step(losses, parameters, given, gradient, betas, lr)

    return {"fastnn": with_fastnn, "eager": lambda: with_torch(False, False),
            "channels last": lambda: with_torch(True, False),
            "compiled": lambda: with_torch(False, True), "JAX": with_jax}  # fmt: skip

"""Two players in one program: their gradients are those of two separate steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.generative import GAN, Joined
from fastnn.generative import gan as module
from fastnn.generative.gan import GAMES, PENALTIES, Players, _mean
from fastnn.tasks import images
from fastnn.tasks.images import Images

RNG = np.random.default_rng(11)
LATENT, FEATURES, BATCH, CLASSES = 3, 4, 6, 2


def layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, outputs))


def make(classes: int = 0, **options: Any) -> GAN:
    parts: list[nn.Module] = [
        layers(LATENT + classes, FEATURES), layers(FEATURES + classes, 1)
    ]  # fmt: skip
    if classes:
        parts = [Joined(part) for part in parts]
    return GAN(*parts, latent=LATENT, classes=classes, **options)


def players(gan: GAN, **options: Any) -> Any:
    losses = {"discriminator": _mean, "generator": _mean}
    return fnn.compile(Players(gan), losses, **options)


CASES = [
    *({"loss": loss} for loss in GAMES),
    *({"loss": "wasserstein", "penalty": penalty} for penalty in PENALTIES),
    {"loss": "non_saturating", "penalty": "r1", "penalty_weight": 0.7, "smoothing": 0.2},
    {"loss": "least_squares", "smoothing": 0.1},
    {"loss": "hinge", "classes": CLASSES},
    {"loss": "wasserstein", "penalty": "gradient", "classes": CLASSES},
]


@pytest.mark.peers
@pytest.mark.parametrize("options", CASES, ids=str)
def test_gradients_are_pytorchs(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each player's, from its own loss alone, with the same noise."""
    torch = pytest.importorskip("torch")
    z, share = RNG.normal(size=(BATCH, LATENT)), RNG.random((BATCH, 1))
    monkeypatch.setattr(module.ops, "normal_like", lambda x: x.graph.constant(z))
    monkeypatch.setattr(module.ops, "uniform_like", lambda x: x.graph.constant(share))
    gan = make(**options)
    gan.to("float64")
    rng = np.random.default_rng(1)
    for p in gan.named_arrays().values():
        p.value = rng.normal(size=p.shape) * 0.7
    x, y = RNG.normal(size=(BATCH, FEATURES)), np.arange(BATCH) % CLASSES
    classes = options.get("classes", 0)
    given = (x, y) if classes else x
    found = players(gan, dtype="float64").gradients(given)

    tensors = {
        n: torch.tensor(np.asarray(p.value), requires_grad=True)
        for n, p in gan.named_parameters().items()
    }
    inner = "module." if classes else ""
    one_hot = torch.nn.functional.one_hot(torch.tensor(y), CLASSES).double()

    def net(player: str, given: Any) -> Any:
        h = torch.cat([given, one_hot], dim=1) if classes else given
        prefix = f"{player}.{inner}"
        w = [tensors[f"{prefix}{k}.{n}"] for k in (0, 2) for n in ("weight", "bias")]
        return torch.tanh(h @ w[0].T + w[1]) @ w[2].T + w[3]

    real = torch.tensor(x)
    made = net("generator", torch.tensor(z))
    softplus, relu = torch.nn.functional.softplus, torch.relu
    r, f = net("discriminator", real), net("discriminator", made.detach())
    s = options.get("smoothing", 0.0)
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    d_loss = {
        "non_saturating": lambda: binary(r, torch.full_like(r, 1 - s)) + softplus(f).mean(),
        "least_squares": lambda: 0.5 * ((r - (1 - s)) ** 2).mean() + 0.5 * (f**2).mean(),
        "wasserstein": lambda: f.mean() - r.mean(),
        "hinge": lambda: relu(1 - r).mean() + relu(1 + f).mean(),
    }[options["loss"]]()
    if "penalty" in options:
        mixed = torch.tensor(share) * real + (1 - torch.tensor(share)) * made.detach()
        place = (real if options["penalty"] == "r1" else mixed).clone().requires_grad_()
        (slope,) = torch.autograd.grad(net("discriminator", place).sum(), place, create_graph=True)
        norms = slope.square().sum(dim=1)
        weight = options.get("penalty_weight", 10.0)
        each = norms / 2 if options["penalty"] == "r1" else ((norms + 1e-12).sqrt() - 1) ** 2
        d_loss = d_loss + weight * each.mean()
    b = net("discriminator", made)
    g_loss = {
        "non_saturating": lambda: softplus(-b).mean(),
        "least_squares": lambda: 0.5 * ((b - 1) ** 2).mean(),
    }.get(options["loss"], lambda: -b.mean())()
    for player, loss in (("discriminator", d_loss), ("generator", g_loss)):
        own = {n: t for n, t in tensors.items() if n.startswith(player)}
        wanted = torch.autograd.grad(loss, list(own.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(own, wanted, strict=True):
            expected = np.zeros(own[name].shape) if gradient is None else gradient.numpy()
            np.testing.assert_allclose(
                found[f"gan.{name}"], expected, rtol=1e-9, atol=1e-11, err_msg=name
            )


@pytest.mark.parametrize("options", CASES[:1] + CASES[4:5] + CASES[-1:], ids=str)
def test_same_bits_on_any_number_of_workers_and_after_a_resume(
    options: dict[str, Any], tmp_path: Path
) -> None:
    x, y = RNG.normal(size=(70, FEATURES)).astype(np.float32), np.arange(70) % CLASSES
    labels = y if options.get("classes") else None
    states = []
    for workers in (1, 2, 3):
        gan = make(**options)
        gan.fit(x, labels, epochs=4, batch_size=16, workers=workers, lr=1e-3, verbose=False)
        states.append(gan.state_dict())
    half = make(**options)
    trainer = half.trainer(lr=1e-3)
    given = x if labels is None else (x, labels)
    history = trainer.fit(given, epochs=2, batch_size=16, verbose=False)
    assert {"loss", "discriminator_loss", "generator_loss"} <= set(history)
    trainer.save(tmp_path / "half")
    gan = make(**options)
    gan.fit(x, labels, epochs=4, batch_size=16, lr=1e-3, resume=tmp_path / "half", verbose=False)
    states.append(gan.state_dict())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])


def test_learns_a_distribution() -> None:
    """Two clusters: samples lie in both."""
    x = np.where(RNG.random(512) < 0.5, -2.0, 2.0)[:, None] + 0.1 * RNG.normal(size=(512, 1))
    generator = nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    discriminator = nn.Sequential(
        nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
    )
    gan = GAN(generator, discriminator, 4, penalty="r1", penalty_weight=0.1)
    history = gan.fit(x, epochs=150, batch_size=64, lr=1e-3, verbose=False)
    made = gan.sample(400, seed=3).ravel()
    low, high = (np.abs(made + 2) < 0.7).mean(), (np.abs(made - 2) < 0.7).mean()
    assert min(low, high) > 0.2
    assert low + high > 0.8
    assert {"loss", "discriminator_loss", "generator_loss"} <= set(history)


def test_a_single_sample_left_over_stops_nothing() -> None:
    x = RNG.normal(size=(9, 1, 4, 4)).astype(np.float32)
    units = {"discriminator_units": 2, "generator_units": 3}
    gan = GAN.dcgan((1, 4, 4), channels=(2,), latent=2, **units)
    history = gan.fit(x, epochs=2, batch_size=4, verbose=False, workers=1)
    assert np.isfinite(history["loss"]).all()
    rows = Images(x.reshape(9, 16), np.zeros(9), x.reshape(9, 16), np.zeros(9), (4, 4))
    model = images.make("gan", (4, 4), (3,), 2)
    trainer = images.trainer_of(model, 4, 1e-3, workers=1)
    images.fit(model, trainer, rows, epochs=2, batch_size=4, verbose=False)
    assert trainer.step == 4


def test_rates_of_both_players() -> None:
    gan = make()
    x = RNG.normal(size=(32, FEATURES)).astype(np.float32)
    gan.initialize(0)
    before = gan.state_dict()
    gan.fit(x, epochs=1, batch_size=16, lr=1e-3, generator_lr=0.0, verbose=False)
    changed = {n.split(".")[0] for n, a in gan.state_dict().items() if (a != before[n]).any()}
    assert changed == {"discriminator"}
    with pytest.raises(OptionError, match="generator_lr"):
        gan.fit(x, optimizer="sgd", generator_lr=0.1, verbose=False)


def test_detached_parameters_count_as_constants_inside_only() -> None:
    """Before, within and after; tied and nested."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            with nn.detached(self.a):
                with nn.detached(self.a, self.b):
                    both = self.b(self.a(x))
                one = self.b(self.a(x))
            return ops.sum(both) + 2.0 * ops.sum(one) + 3.0 * ops.sum(self.a(x))

    model = Model()
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    step = fnn.compile(model, lambda out, _: out, "sgd", dtype="float64")
    found = step.gradients(x.astype(np.float64))
    np.testing.assert_allclose(found["a.bias"], np.full(3, 15.0))
    hidden = x.astype(np.float64) @ model.a.weight.value.T + model.a.bias.value
    np.testing.assert_allclose(found["b.weight"], 2.0 * np.tile(hidden.sum(axis=0), (3, 1)))
    with pytest.raises(OptionError, match="freeze"), nn.detached(model.a):
        pass


def test_the_penaltys_places_lie_on_lines_between_samples() -> None:
    """From (0, 0) to (1, 1): where both numbers are equal this discriminator has no slope."""

    class Unequal(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter((1,), 1.0)

        def forward(self, x: Any) -> Any:
            return ops.square(x[:, :1] - x[:, 1:]) * self.scale

    generator = nn.Linear(2, 2)
    generator.weight.value, generator.bias.value = np.zeros((2, 2)), np.zeros(2)
    gan = GAN(generator, Unequal(), 2, loss="wasserstein", penalty="gradient")
    x = np.ones((16, 2))
    history = gan.fit(x, epochs=1, batch_size=16, lr=0.0, dtype="float64", verbose=False)
    assert history["discriminator_loss"][0] == pytest.approx(10.0, rel=1e-4)


def test_a_flat_discriminator_has_a_slope_of_the_penalty() -> None:
    """Where |grad D| is 0 its root has no slope of its own."""
    gan = make(loss="wasserstein", penalty="gradient")
    for p in gan.discriminator.named_parameters().values():
        p.value = np.zeros(p.shape, np.float32)
    history = gan.fit(RNG.normal(size=(8, FEATURES)), epochs=2, batch_size=8, verbose=False)
    assert history["discriminator_loss"][0] == pytest.approx(10.0, rel=1e-4)
    assert np.isfinite(history["loss"]).all()


def test_bad_options_and_shapes() -> None:
    with pytest.raises(OptionError, match="loss"):
        make(loss="vanilla")
    with pytest.raises(OptionError, match="penalty"):
        make(penalty="l2")
    with pytest.raises(OptionError, match="a penalty to weigh"):
        make(penalty_weight=3.0)
    with pytest.raises(OptionError, match="smoothing"):
        make(loss="hinge", smoothing=0.1)
    x = np.zeros((8, FEATURES), np.float32)
    with pytest.raises(ShapeError, match="data's shape"):
        make().fit(x[:, :2], verbose=False)
    with pytest.raises(ShapeError, match="one number for each sample"):
        GAN(layers(LATENT, FEATURES), layers(FEATURES, 2), LATENT).fit(x, verbose=False)
    with pytest.raises(ShapeError, match="no class numbers"):
        make().fit(x, np.zeros(8, int), verbose=False)
    with pytest.raises(ShapeError, match="class numbers below"):
        make(classes=2).sample(2)
    for shares in ([0.5, 0.4], [1.0], [1.5, -0.5], [0.5, float("nan")], "half", 1.0):
        with pytest.raises(OptionError, match="one for each of 2 classes"):
            make(classes=2, shares=shares)
    with pytest.raises(OptionError, match="one for each of 0"):
        make(shares=[0.5, 0.5])


def test_classes_are_drawn_as_often_as_they_are() -> None:
    gan = make(classes=2, shares=[0.25, 0.75])
    drawn = np.random.default_rng([4, 1]).choice(2, 40, p=[0.25, 0.75])
    np.testing.assert_array_equal(gan.sample(40, seed=4), gan.sample(40, y=drawn, seed=4))
    assert (gan.sample(40, y=1, seed=4) != gan.sample(40, seed=4)).any()
    ones = make(classes=2, shares=[0, 1])
    np.testing.assert_array_equal(ones.sample(5), ones.sample(5, y=1))


def test_truncated_noise_stays_within() -> None:
    """What is within is that of no truncation; the rest is drawn again."""
    identity = nn.Sequential(nn.Linear(4, 4))
    identity[0].weight.value, identity[0].bias.value = np.eye(4), np.zeros(4)
    gan = GAN(identity, nn.Sequential(nn.Linear(4, 1)), 4)
    whole, cut = gan.sample(3000, seed=2), gan.sample(3000, seed=2, truncation=0.8)
    assert np.abs(cut).max() <= 0.8
    inside = np.abs(whole) <= 0.8
    np.testing.assert_array_equal(cut[inside], whole[inside])
    # the deviation of a normal distribution between -0.8 and 0.8
    assert cut.std() == pytest.approx(0.44, abs=0.01)
    np.testing.assert_array_equal(cut, gan.sample(3000, seed=2, truncation=0.8))
    for wrong in (0.0, -1.0, "1", float("nan")):
        with pytest.raises(OptionError, match="truncation"):
            gan.sample(3, truncation=wrong)  # type: ignore[arg-type]


def test_a_condition_joins_what_comes_before() -> None:
    """Beside NumPy's."""
    net = Joined(nn.Linear(8 + CLASSES, 1), before=nn.Sequential(nn.Linear(5, 8), nn.Tanh()))
    net.to("float64")
    net.initialize(0)
    x, c = RNG.normal(size=(6, 5)), np.eye(CLASSES)[np.arange(6) % CLASSES]
    state = {name: np.asarray(value) for name, value in net.state_dict().items()}
    h = np.tanh(x @ state["before.0.weight"].T + state["before.0.bias"])
    wanted = np.concatenate([h, c], axis=1) @ state["module.weight"].T + state["module.bias"]
    np.testing.assert_allclose(net.predict(x, c), wanted, rtol=1e-12)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_conditional_gans_of_rows(channels: tuple[int, ...]) -> None:
    x, y = RNG.random((20, 16), dtype=np.float32), np.arange(20) % 10
    rows = Images(x, y, x, y, (4, 4))
    made = []
    for workers in (1, 2):
        model = images.make("gan", (4, 4), (3,), 2, channels, classes=10)
        trainer = images.trainer_of(model, 9, 1e-2, workers=workers)
        images.fit(model, trainer, rows, epochs=1, batch_size=10, verbose=False)
        made.append(images.drawn_samples(model, 11))
    np.testing.assert_array_equal(made[0], made[1])
    assert isinstance(model, GAN)
    np.testing.assert_array_equal(made[0], model.sample(11, y=np.arange(11) % 10))
    codes = images.drawn_samples(model, 11, walk=True)
    assert codes.shape == (11, 16)
    assert (made[0] != model.sample(11, y=0)).any()

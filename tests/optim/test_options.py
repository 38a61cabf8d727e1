"""Options of optimisers: NumPy numbers, schedules as rates, maximize, amsgrad, huge gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.optim import schedules
from fastnn.train.hooks import Callback

RULES = {
    "SGD": {"momentum": 0.9},
    "Adam": {},
    "AdamW": {},
    "Adagrad": {},
    "RMSprop": {"momentum": 0.5},
    "Adadelta": {},
}


def table(gradients: np.ndarray, optimizer: optim.Optimizer, steps: int = 1) -> np.ndarray:
    """A table of ones after steps with these gradients, one a row."""
    model = nn.Embedding(len(gradients), 1, weight_init=1.0)
    dtype = gradients.dtype.name
    step = fnn.compile(
        model, lambda o, y: ops.total(o * y), optimizer, dtype=dtype, device="cpu",
        stop_on_nonfinite=False,
    )  # fmt: skip
    for _ in range(steps):
        step(np.arange(len(gradients)), gradients.reshape(-1, 1))
    return np.array(model.weight).ravel()


def test_numbers_of_numpy() -> None:
    given = optim.Adam(
        lr=np.float32(0.25), betas=(np.float64(0.5), np.array(0.75)), weight_decay=np.int64(1),
        clip_global_norm=np.float32(2), groups={"*.bias": {"lr": np.float64(0.5)}},
    )  # fmt: skip
    assert given.options["lr"] == 0.25
    assert type(given.options["lr"]) is type(given.options["beta2"]) is float
    assert given.group_options(1)["lr"] == 0.5
    with pytest.raises(OptionError, match="lr: expected a number, got True"):
        optim.SGD(lr=True)
    with pytest.raises(OptionError, match=r"lr: expected a number, got array\(\[1\.\]\)"):
        optim.SGD(lr=np.ones(1))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="maximize: expected a bool, got 1"):
        optim.SGD(maximize=1)


def test_a_schedule_as_the_rate() -> None:
    g = np.array([1.0, -2.0])
    schedule = schedules.Piecewise([1, 2], [0.5, 0.25, 0.125])
    got = table(g, optim.SGD(lr=schedule), steps=3)
    np.testing.assert_array_equal(got, 1 - 0.875 * g)
    np.testing.assert_array_equal(got, table(g, optim.SGD(lr=1.0, schedule=schedule), steps=3))
    with pytest.raises(OptionError, match="expected one schedule, got two"):
        optim.SGD(lr=schedule, schedule=schedule)
    with pytest.raises(OptionError, match=r"schedule: expected one of fastnn\.optim"):
        optim.SGD(schedule=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0.0, 0.1])
def test_a_rate_of_0_can_be_left_again(given: float) -> None:
    groups = {"bias": {"lr": 0.5}}
    step = fnn.compile(nn.Linear(3, 2), "mse", optim.SGD(lr=given, groups=groups), device="cpu")
    trainer = fnn.Trainer(nn.Linear(3, 2), "mse", optim.SGD(lr=given, groups=groups), device="cpu")
    for owner in (step, trainer):
        assert owner.learning_rate == given
        owner.learning_rate = 0.0
        assert owner.learning_rate == 0.0
        owner.learning_rate = 0.2
        assert owner.learning_rate == pytest.approx(0.2)
    np.testing.assert_allclose(trainer.rates(1)[0], [0.2, 0.5 if given == 0 else 1.0])


def test_setting_the_rate_takes_effect_at_the_next_step() -> None:
    """The table of rates that was computed ahead is not used any longer."""
    model = nn.Embedding(1, 1, weight_init=1.0)
    step = fnn.compile(model, lambda o, y: ops.total(o * y), optim.SGD(lr=0.5), device="cpu")
    one = np.ones((1, 1), np.float32)
    for rate, want in ((0.5, 0.5), (0.25, 0.25), (0.0, 0.25), (2.0, -1.75)):
        step.learning_rate = rate
        step(np.zeros(1, np.int64), one)
        assert np.array(model.weight).item() == want


def test_decay_comes_after_clipping() -> None:
    """PyTorch clips gradients before the optimiser adds its decay to them."""
    g = np.array([8.0, -0.25])
    for clip, want in (({"clip_value": 0.5}, [0.5, -0.25]), ({"clip_norm": 1.0}, g / 8.00390527)):
        got = table(g, optim.SGD(lr=1.0, weight_decay=3.0, **clip))
        np.testing.assert_allclose(got, 1 - (np.array(want) + 3.0), rtol=1e-5)


def test_amsgrad_divides_by_the_largest_so_far() -> None:
    model = nn.Embedding(2, 1, weight_init=1.0)
    step = fnn.compile(
        model, lambda o, y: ops.total(o * y), optim.Adam(lr=0.1, amsgrad=True), dtype="float64",
        device="cpu",
    )  # fmt: skip
    p, m, v, largest = np.ones(2), np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        g = np.array([3.0, -0.5]) * 0.1**t
        step(np.arange(2), g.reshape(-1, 1))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        largest = np.maximum(largest, v)
        root = np.sqrt(largest / (1 - 0.999**t))
        p = p - 0.1 / (1 - 0.9**t) * m / (root + 1e-8)
    assert (largest > v).all()
    np.testing.assert_allclose(np.array(model.weight).ravel(), p, rtol=1e-12)


@pytest.mark.parametrize("clip", [{"clip_global_norm": 5.0}, {"clip_norm": 5.0}, {"clip_value": 4}])
def test_maximize_with_clipping(clip: dict[str, float]) -> None:
    g = np.array([6.0, -8.0])
    want = np.clip(g, -4, 4) if "clip_value" in clip else g / 2
    for sign in (1, -1):
        got = table(g, optim.SGD(lr=0.5, maximize=sign > 0, **clip))
        np.testing.assert_allclose(got, 1 + sign * 0.5 * want, rtol=1e-6)


class Batches:
    """Batches without a length."""

    def __init__(self, *sizes: int):
        self.sizes = sizes

    def __iter__(self) -> Any:
        for size in self.sizes:
            yield np.ones((size, 1), np.float32), np.zeros((size, 1), np.float32)


def test_an_epoch_of_a_schedule_is_the_trainers(tmp_path: Any) -> None:
    schedule = schedules.Piecewise([1, 2, 3, 4], [1, 2, 4, 8, 16], unit="epoch")
    seen: list[float] = []

    class Look(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any) -> None:
            seen.append(float(self.trainer.rates(1)[0, 0]))  # type: ignore[attr-defined]

    def new() -> fnn.Trainer:
        return fnn.Trainer(nn.Linear(1, 1), "mse", optim.SGD(lr=0.001, schedule=schedule),
                           device="cpu")  # fmt: skip

    def fit(trainer: fnn.Trainer, *data: Any, **options: Any) -> None:
        trainer.fit(*data, verbose=False, callbacks=[Look()], **options)

    x, y = np.ones((12, 1), np.float32), np.zeros((12, 1), np.float32)
    trainer = new()
    fit(trainer, Batches(3, 3, 3), epochs=2)
    fit(trainer, x, y, batch_size=6)
    trainer.save(tmp_path / "run")
    fit(trainer, x, y, batch_size=4)
    assert np.allclose(seen, 0.001 * np.repeat([1, 2, 4, 8], [3, 3, 2, 3]))
    seen.clear()
    again = new()
    with pytest.warns(UserWarning, match="batch_size was 6 and is 4"):
        fit(again, x, y, batch_size=4, epochs=5, resume=tmp_path / "run")
    assert np.allclose(seen, 0.001 * np.repeat([8, 16], 3))


# ---------------------------------------------------------------- extreme gradients

SIZES = np.array(
    [1e-38, 1e-30, 1e-20, 1e-15, 1e-10, 1e-3, 1.0, 1e10, 1e18, 1.7e19, 2e19, 1e25, 1e38, 3e38]
)


def oracle(name: str, g: np.ndarray, eps: float) -> np.ndarray:
    """A first step from 1 in float64, squares as infinity where they leave float32."""
    top = float(np.finfo(np.float32).max)

    def limited(v: np.ndarray) -> np.ndarray:
        return np.where(v > top, np.inf, v)

    if name == "Adam":
        return 1 - 0.1 * g / (np.sqrt(limited(0.001 * g * g) / 0.001) + eps)
    if name == "Adagrad":
        return 1 - 0.1 * g / (np.sqrt(limited(g * g)) + eps)
    if name == "RMSprop":
        return 1 - 0.1 * g / (np.sqrt(limited(0.01 * g * g)) + eps)
    s = limited(0.1 * g * g)
    return 1 - 0.1 * np.sqrt(eps) / np.sqrt(s + eps) * g


@pytest.mark.parametrize("name", ["Adam", "Adagrad", "RMSprop", "Adadelta"])
def test_gradients_of_any_size(name: str) -> None:
    g = np.concatenate([SIZES, -SIZES]).astype(np.float32)
    eps = {"Adam": 1e-8, "Adagrad": 1e-10, "RMSprop": 1e-8, "Adadelta": 1e-6}[name]
    got = table(g, getattr(optim, name)(lr=0.1, eps=eps))
    want = oracle(name, g.astype(np.float64), eps)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-20, 9e-17])
@pytest.mark.parametrize("name", ["Adam", "Adagrad", "RMSprop", "Adadelta"])
def test_an_epsilon_that_float32_loses_is_refused(name: str, eps: float) -> None:
    """Squares of gradients below 1e-19 are 0 there: their steps would be of another size."""
    optimizer = getattr(optim, name)(lr=0.1, eps=eps)
    with pytest.raises(OptionError, match=f"{name}: expected eps of at least 1e-16 in float32"):
        fnn.Trainer(nn.Linear(2, 1), "mse", optimizer, device="cpu")
    with pytest.raises(OptionError, match="dtype='float64'"):
        fnn.compile(nn.Linear(2, 1), "mse", optimizer, device="cpu")
    fnn.Trainer(nn.Linear(2, 1), "mse", optimizer, device="cpu", dtype="float64")


def test_centred_variance_is_never_negative() -> None:
    g = np.concatenate([SIZES, -SIZES]).astype(np.float32)
    weights = table(g, optim.RMSprop(lr=1e-9, centered=True, eps=1e-3), steps=40)
    assert np.isfinite(weights).all()
    assert (np.abs(weights - 1) < 1).all()


# ---------------------------------------------------------------- parity


@pytest.mark.peers
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", RULES)
def test_maximize_as_pytorch(name: str, decay: float) -> None:
    torch = pytest.importorskip("torch")
    g = np.random.default_rng(0).normal(size=7)
    options = {"lr": 0.1, "weight_decay": decay, "maximize": True, **RULES[name]}
    p = torch.ones(7, 1, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, name)([p], **options)
    for _ in range(5):
        p.grad = torch.tensor(g.reshape(-1, 1))
        theirs.step()
    got = table(g, getattr(optim, name)(**options), steps=5)
    np.testing.assert_allclose(got, p.detach().numpy().ravel(), rtol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_amsgrad_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    model = nn.Embedding(6, 1, weight_init=1.0)
    step = fnn.compile(
        model, lambda o, y: ops.total(o * y), getattr(optim, name)(lr=0.1, amsgrad=True),
        dtype="float64", device="cpu",
    )  # fmt: skip
    p = torch.ones(6, 1, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, name)([p], lr=0.1, amsgrad=True)
    for k in range(8):
        g = rng.normal(size=(6, 1)) * 0.5**k  # the largest v is an earlier one
        p.grad = torch.tensor(g)
        theirs.step()
        step(np.arange(6), g)
    np.testing.assert_allclose(np.array(model.weight), p.detach().numpy(), rtol=1e-12)
    slots = {n for n in step.session.memory if n.startswith("slots/")}
    assert slots == {"slots/exp_avg", "slots/exp_avg_sq", "slots/max_exp_avg_sq"}


@pytest.mark.parametrize(
    ("make", "unknown", "known"),
    [
        (lambda: optim.AdamW(decoupled_weight_decay=0.1), "decoupled_weight_decay", "weight_decay"),
        (lambda: optim.Muon(decoupled_weight_decay=0.1), "decoupled_weight_decay", "weight_decay"),
        (lambda: optim.Adam(beta1=0.9), "beta1", "betas"),
        (lambda: optim.LAMB(ratio_decay=0.1), "ratio_decay", "weight_decay"),
        (lambda: optim.Rprop(largest=1.0), "largest", "step_sizes"),
    ],
)
def test_names_that_only_a_rule_knows_are_refused(make: Any, unknown: str, known: str) -> None:
    with pytest.raises(OptionError, match=f"unknown option '{unknown}'; expected .*'{known}'"):
        make()


class Windows(nn.Module):
    """Two convolutions, the first with a weight that lies transposed or as it is seen."""

    def __init__(self, transposed: bool):
        self.weight = nn.Parameter((3, 2, 4), 0.0, transposed=transposed)
        self.second = nn.Parameter((2, 3, 1, 2), 0.0, transposed=transposed)

    def forward(self, x: Any) -> Any:
        y = ops.tanh(ops.conv1d(x, self.weight))
        y = ops.conv2d(ops.reshape(y, x.shape[0], 3, 1, -1), self.second)
        return ops.mean(ops.reshape(y, x.shape[0], 2, -1), -1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=0.1, clip_norm=0.05),
        lambda: optim.SGD(lr=0.1, clip_global_norm=0.05),
        lambda: optim.SGD(lr=0.1, max_norm=0.3),
        lambda: optim.LAMB(lr=0.1),
        lambda: optim.Adafactor(lr=0.1),
        lambda: optim.AdaSecant(),
    ],
    ids=["clip_norm", "clip_global_norm", "max_norm", "lamb", "adafactor", "adasecant"],
)
def test_weights_of_three_and_four_axes(make: Any) -> None:
    """Sums over a weight have all its numbers, wherever these lie in memory."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5, 2, 9)), rng.normal(size=(3, 5, 2))
    given = {"weight": rng.normal(size=(3, 2, 4)), "second": rng.normal(size=(2, 3, 1, 2))}
    found = []
    for transposed in (True, False):
        model = Windows(transposed)
        step = fnn.compile(model, "mse", make(), dtype="float64", device="cpu")
        model.load_state_dict(given)
        for rows, target in zip(x, y, strict=True):
            step(rows, target)
        found.append(model.state_dict())
    for name, first in found[0].items():
        assert abs(first - given[name]).max() > 1e-4
        np.testing.assert_allclose(first, found[1][name], rtol=0, atol=1e-12)


def test_a_convolutions_gradient_is_clipped_by_its_whole_norm() -> None:
    model = nn.Conv1d(2, 3, 4, bias=False, weight_init=1.0)
    step = fnn.compile(
        model, lambda o, y: ops.total(o * y), optim.SGD(lr=1.0, clip_norm=2.0), dtype="float64",
        device="cpu",
    )  # fmt: skip
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 2, 7)), rng.normal(size=(2, 3, 4))
    g = step.gradients(x, y)["weight"]
    step(x, y)
    want = 1.0 - g * min(1.0, 2.0 / np.linalg.norm(g))
    np.testing.assert_allclose(np.array(model.weight), want, rtol=1e-6)

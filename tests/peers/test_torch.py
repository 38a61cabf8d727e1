"""Ten training steps beside PyTorch, from equal parameters: losses, every gradient, the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers
F = torch.nn.functional

STEPS, BATCH, FEATURES, CLASSES = 10, 8, 6, 4


# ---------------------------------------------------------------- models: ours and theirs


class OurTagger(nn.Module):
    def __init__(self) -> None:
        self.embed = nn.Embedding(11, FEATURES, padding_idx=0)
        self.norm = nn.LayerNorm(FEATURES)
        self.up, self.down = nn.Linear(FEATURES, 9), nn.Linear(9, FEATURES)
        self.slope = nn.PReLU()
        self.head = nn.Linear(2 * FEATURES, CLASSES)

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        h = x + self.down(self.slope(self.up(self.norm(x))))
        return self.head(ops.concatenate(h, ops.sigmoid(h) * x))


def their_tagger() -> Any:
    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, FEATURES, padding_idx=0)
            self.norm = torch.nn.LayerNorm(FEATURES)
            self.up, self.down = torch.nn.Linear(FEATURES, 9), torch.nn.Linear(9, FEATURES)
            self.slope = torch.nn.PReLU()
            self.head = torch.nn.Linear(2 * FEATURES, CLASSES)

        def forward(self, ids: Any) -> Any:
            x = self.embed(ids)
            h = x + self.down(self.slope(self.up(self.norm(x))))
            return self.head(torch.cat([h, torch.sigmoid(h) * x], -1))

    return Tagger()


def between(
    ours: nn.Module, theirs: Any, width: int = 12, bias: bool = True
) -> tuple[nn.Module, Any]:
    """A layer between two linear ones. Before batch norm a bias has no gradient but rounding."""
    return (
        nn.Sequential(nn.Linear(FEATURES, 12, bias), ours, nn.Linear(width, CLASSES)),
        torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 12, bias), theirs, torch.nn.Linear(width, CLASSES)
        ),
    )


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "linear": lambda: (nn.Linear(FEATURES, CLASSES), torch.nn.Linear(FEATURES, CLASSES)),
    "relu": lambda: between(nn.ReLU(), torch.nn.ReLU()),
    "leaky relu": lambda: between(nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2)),
    "prelu": lambda: between(nn.PReLU(12), torch.nn.PReLU(12)),
    "one prelu": lambda: between(nn.PReLU(), torch.nn.PReLU()),
    "elu": lambda: between(nn.ELU(0.7), torch.nn.ELU(0.7)),
    "selu": lambda: between(nn.SELU(), torch.nn.SELU()),
    "gelu": lambda: between(nn.GELU(), torch.nn.GELU()),
    "gelu tanh": lambda: between(nn.GELU("tanh"), torch.nn.GELU(approximate="tanh")),
    "silu": lambda: between(nn.SiLU(), torch.nn.SiLU()),
    "sigmoid": lambda: between(nn.Sigmoid(), torch.nn.Sigmoid()),
    "tanh": lambda: between(nn.Tanh(), torch.nn.Tanh()),
    "softplus": lambda: between(nn.Softplus(2.0, 5.0), torch.nn.Softplus(2.0, 5.0)),
    "softmax": lambda: between(nn.Softmax(), torch.nn.Softmax(-1)),
    "log softmax": lambda: between(nn.LogSoftmax(), torch.nn.LogSoftmax(-1)),
    "layer norm": lambda: between(nn.LayerNorm(12), torch.nn.LayerNorm(12)),
    "plain layer norm": lambda: between(
        nn.LayerNorm(12, eps=1e-3, affine=False),
        torch.nn.LayerNorm(12, eps=1e-3, elementwise_affine=False),
    ),
    "batch norm": lambda: between(nn.BatchNorm(12), torch.nn.BatchNorm1d(12), bias=False),
    "slow batch norm": lambda: between(
        nn.BatchNorm(12, eps=1e-3, momentum=0.3),
        torch.nn.BatchNorm1d(12, eps=1e-3, momentum=0.3),
        bias=False,
    ),
    "maxout": lambda: between(nn.Maxout(2), _TheirMaxout(), 6),
    "tagger": lambda: (OurTagger(), their_tagger()),
}


class _TheirMaxout(torch.nn.Module):  # type: ignore[misc, name-defined]
    def forward(self, x: Any) -> Any:
        return torch.maximum(x[..., :6], x[..., 6:])


OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sgd": (
        lambda **m: optim.SGD(lr=0.1, **m),
        lambda p, **m: torch.optim.SGD(p, lr=0.1, **m),
    ),
    "momentum": (
        lambda **m: optim.SGD(lr=0.1, momentum=0.9, dampening=0.2, **m),
        lambda p, **m: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2, **m),
    ),
    "nesterov": (
        lambda **m: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, **m),
        lambda p, **m: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, **m),
    ),
    "adagrad": (
        lambda **m: optim.Adagrad(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1, **m),
        lambda p, **m: torch.optim.Adagrad(
            p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1, **m
        ),
    ),
    "rmsprop": (
        lambda **m: optim.RMSprop(lr=0.01, **m),
        lambda p, **m: torch.optim.RMSprop(p, lr=0.01, **m),
    ),
    "rmsprop centered momentum": (
        lambda **m: optim.RMSprop(lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, **m),
        lambda p, **m: torch.optim.RMSprop(
            p, lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, **m
        ),
    ),
    "adadelta": (
        lambda **m: optim.Adadelta(lr=1.0, **m),
        lambda p, **m: torch.optim.Adadelta(p, lr=1.0, **m),
    ),
    "adam": (
        lambda **m: optim.Adam(lr=0.01, **m),
        lambda p, **m: torch.optim.Adam(p, lr=0.01, **m),
    ),
    "adamw": (
        lambda **m: optim.AdamW(lr=0.01, **{"weight_decay": 0.2, **m}),
        lambda p, **m: torch.optim.AdamW(p, lr=0.01, **{"weight_decay": 0.2, **m}),
    ),
}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    if name == "tagger":
        x: np.ndarray = rng.integers(0, 11, (STEPS * BATCH, 3))
        return x, rng.integers(0, CLASSES, x.shape)
    x = rng.normal(size=(STEPS * BATCH, FEATURES)).astype(np.float32)
    return x, rng.integers(0, CLASSES, len(x))


def copy_parameters(ours: nn.Module, theirs: Any) -> None:
    """Give theirs the values of ours; the names are the same but for buffers."""
    mine = ours.state_dict()
    other = dict(theirs.named_parameters())
    assert set(other) == set(ours.named_parameters())
    with torch.no_grad():
        for name, parameter in other.items():
            assert parameter.shape == mine[name].shape, name
            parameter.copy_(torch.from_numpy(mine[name]))


def close(got: Any, want: Any, what: str, room: float = 1.0) -> None:
    """Within float32 rounding of the array's largest number."""
    want = np.asarray(want, np.float64)
    scale = float(np.abs(want).max()) if want.size else 0.0
    np.testing.assert_allclose(
        got, want, rtol=1e-5 * room, atol=1e-5 * room * scale + 1e-8, err_msg=what
    )


class Steps(fnn.callbacks.Callback):
    """The losses and all gradients, step by step."""

    def __init__(self, model: nn.Module):
        self.net = model
        self.losses: list[float] = []
        self.gradients: list[dict[str, np.ndarray]] = []
        self.before = np.zeros(2)

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        totals = self.trainer.session.totals[:2].copy()  # of the epoch so far: sum and count
        added, self.before = totals - self.before, totals
        self.losses.append(float(added[0] / added[1]))
        self.gradients.append({n: np.array(p.grad) for n, p in self.net.named_parameters().items()})


def compare(
    ours: nn.Module,
    theirs: Any,
    our_loss: Any,
    their_loss: Callable[[Any, Any], Any],
    our_optimizer: optim.Optimizer,
    their_optimizer: Callable[[Any], Any],
    x: np.ndarray,
    y: np.ndarray,
    clip: Callable[[Any], Any] | None = None,
    clipped: bool = False,
    room: float = 1.0,
) -> None:
    """Train both; `clipped`: their gradients are changed in place before we could compare them."""
    trainer = fnn.Trainer(ours, our_loss, our_optimizer, workers=2, seed=7, keep_gradients=True)
    copy_parameters(ours, theirs)
    steps = Steps(ours)
    trainer.fit(x, y, batch_size=BATCH, shuffle=False, verbose=False, callbacks=[steps])
    assert len(steps.losses) == STEPS
    optimizer = their_optimizer(theirs.parameters())
    target = torch.from_numpy(y)
    for k in range(STEPS):
        rows = slice(k * BATCH, (k + 1) * BATCH)
        optimizer.zero_grad()
        loss = their_loss(theirs(torch.from_numpy(x[rows])), target[rows])
        loss.backward()
        close(steps.losses[k], loss.item(), f"loss of step {k}", room)
        for name, parameter in theirs.named_parameters():
            close(steps.gradients[k][name], parameter.grad, f"step {k}: {name}.grad", 4 * room)
        if clip is not None:
            clip(theirs.parameters())
        optimizer.step()
    final = trainer.get_parameters()
    for name, parameter in theirs.named_parameters():
        close(final[name], parameter.detach(), name, 4 * room)
    for name, buffer in theirs.named_buffers():
        if name in final:
            close(final[name], buffer, name, room)
    theirs.eval()
    with torch.no_grad():
        close(trainer.predict(x), theirs(torch.from_numpy(x)), "prediction", 4 * room)


def cross_entropy(output: Any, target: Any) -> Any:
    return F.cross_entropy(output.reshape(-1, CLASSES), target.reshape(-1))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("model", ["relu", "batch norm", "tagger"])
def test_optimizers(name: str, model: str) -> None:
    x, y = data(model)
    ours, theirs = OPTIMIZERS[name]
    # divisions by roots of tiny second moments amplify the rounding of the gradients
    room = 1.0 if name in ("sgd", "momentum", "nesterov") else 20.0
    compare(*MODELS[model](), "cross_entropy", cross_entropy, ours(), theirs, x, y, room=room)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay(name: str) -> None:
    x, y = data("tanh")
    ours, theirs = OPTIMIZERS[name]
    compare(
        *MODELS["tanh"](), "cross_entropy", cross_entropy, ours(weight_decay=0.1),
        lambda p: theirs(p, weight_decay=0.1), x, y,
        room=1.0 if name in ("sgd", "momentum", "nesterov") else 20.0,
    )  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_layers(model: str) -> None:
    x, y = data(model)
    ours, theirs = OPTIMIZERS["momentum"]
    room = 4.0 if "norm" in model else 2.0
    compare(*MODELS[model](), "cross_entropy", cross_entropy, ours(), theirs, x, y, room=room)


@pytest.mark.parametrize("limit", [0.05, 0.5, 100.0])
def test_clip_grad_norm(limit: float) -> None:
    x, y = data("tanh")
    ours, theirs = OPTIMIZERS["momentum"]
    compare(
        *MODELS["tanh"](), "cross_entropy", cross_entropy, ours(clip_global_norm=limit), theirs,
        x, y, clip=lambda p: torch.nn.utils.clip_grad_norm_(list(p), limit),
    )  # fmt: skip


def test_clip_grad_value() -> None:
    x, y = data("tanh")
    ours, theirs = OPTIMIZERS["nesterov"]
    compare(
        *MODELS["tanh"](), "cross_entropy", cross_entropy, ours(clip_value=0.01), theirs, x, y,
        clip=lambda p: torch.nn.utils.clip_grad_value_(list(p), 0.01),
    )  # fmt: skip


# ---------------------------------------------------------------- schedules and groups


def test_schedule_and_groups() -> None:
    x, y = data("tanh")
    ours, theirs = MODELS["tanh"]()
    schedule = optim.schedules.StepDecay(3, gamma=0.5)

    class Stepping(torch.optim.SGD):  # type: ignore[misc, name-defined]
        """Calls its scheduler itself."""

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            scheduler.step()

    optimizer = Stepping(
        [
            {"params": [p for n, p in theirs.named_parameters() if n.endswith("weight")]},
            {
                "params": [p for n, p in theirs.named_parameters() if n.endswith("bias")],
                "lr": 0.3,
                "weight_decay": 0.0,
            },
        ],
        lr=0.1,
        weight_decay=0.05,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
    compare(
        ours, theirs, "cross_entropy", cross_entropy,
        optim.SGD(
            lr=0.1, weight_decay=0.05, schedule=schedule,
            groups={"*.bias": {"lr": 0.3, "weight_decay": 0.0}},
        ),
        lambda p: optimizer, x, y,
    )  # fmt: skip


# ---------------------------------------------------------------- gradients that are infinite


class Factors(nn.Module):
    """Each parameter's gradient is its input."""

    def __init__(self) -> None:
        self.w = nn.Parameter((4,), 1.0)

    def forward(self, x: Any) -> Any:
        return x * self.w


RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "dampening": ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "decay": ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    "AdaGrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {}),
    "Adam": ("Adam", {}),
}


@pytest.mark.parametrize("rule", RULES)
def test_infinite_gradients_do_what_they_do_in_pytorch(rule: str) -> None:
    """Where nothing stops them."""
    name, options = RULES[rule]
    model, x = Factors(), np.array([[1.0, np.inf, -np.inf, np.nan]], np.float32)
    step = fnn.compile(
        model, lambda y, _: y.sum(), getattr(optim, name)(lr=0.1, **options),
        stop_on_nonfinite=False,
    )  # fmt: skip
    theirs = torch.nn.Parameter(torch.ones(4))
    optimizer = getattr(torch.optim, name)([theirs], lr=0.1, **options)
    for _ in range(3):
        step(x, x)
        theirs.grad = torch.tensor(x[0])
        optimizer.step()
        np.testing.assert_allclose(model.w.value, theirs.detach().numpy(), rtol=1e-6, atol=1e-6)

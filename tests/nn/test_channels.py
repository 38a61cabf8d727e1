"""Normalisation of channels beside PyTorch's, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, testing
from fastnn.errors import OptionError, ShapeError
from fastnn.testing.null import null_device
from tests.convolved import results

RNG = np.random.default_rng(4)
SHAPES = {0: (6, 4), 1: (5, 4, 7), 2: (3, 4, 5, 2)}
CASES: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "BatchNorm1d flat": (lambda **o: nn.BatchNorm1d(4, **o), "BatchNorm1d", SHAPES[0]),
    "BatchNorm1d": (lambda **o: nn.BatchNorm1d(4, **o), "BatchNorm1d", SHAPES[1]),
    "BatchNorm2d": (lambda **o: nn.BatchNorm2d(4, **o), "BatchNorm2d", SHAPES[2]),
    "GroupNorm flat": (lambda **o: nn.GroupNorm(2, 4, **o), "GroupNorm", SHAPES[0]),
    "GroupNorm 1": (lambda **o: nn.GroupNorm(1, 4, **o), "GroupNorm", SHAPES[1]),
    "GroupNorm": (lambda **o: nn.GroupNorm(2, 4, **o), "GroupNorm", SHAPES[2]),
    "InstanceNorm1d": (lambda **o: nn.InstanceNorm1d(4, **o), "InstanceNorm1d", SHAPES[1]),
    "InstanceNorm2d": (lambda **o: nn.InstanceNorm2d(4, **o), "InstanceNorm2d", SHAPES[2]),
    "InstanceNorm1d tracked": (
        lambda **o: nn.InstanceNorm1d(4, 0.05, 0.3, track_running_stats=True, **o),
        "InstanceNorm1d", SHAPES[1],
    ),
    "InstanceNorm2d tracked": (
        lambda **o: nn.InstanceNorm2d(4, 0.05, 0.3, track_running_stats=True, **o),
        "InstanceNorm2d", SHAPES[2],
    ),
}  # fmt: skip


def moved(x: np.ndarray, channels: str) -> np.ndarray:
    """Channels first, or moved to the end."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if channels == "last" else x


@pytest.mark.peers
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str, channels: str) -> None:
    """A step with its update, its running statistics, and evaluation after it."""
    torch = pytest.importorskip("torch")
    make, kind, shape = CASES[name]
    tracked = {"track_running_stats": True, "momentum": 0.3} if "tracked" in name else {}
    ours = make(affine=True, channels=channels, **{} if tracked else {"eps": 0.05})
    ours.to("float64")
    for p in ours.named_parameters().values():
        p.value = RNG.normal(size=p.shape) + 1
    arguments = {"GroupNorm": (getattr(ours, "num_groups", 0), 4)}.get(kind, (4,))
    theirs = getattr(torch.nn, kind)(*arguments, affine=True, eps=0.05, **tracked).double()
    theirs.load_state_dict(
        {n: torch.tensor(np.array(a)) for n, a in ours.state_dict().items()}, strict=False
    )
    x, target = RNG.normal(size=shape), RNG.normal(size=shape)
    given = torch.tensor(x, requires_grad=True)
    torch.nn.functional.mse_loss(theirs(given), torch.tensor(target)).backward()
    step = fnn.compile(ours, "mse", fnn.optim.SGD(lr=0.3), dtype="float64")
    found = step.gradients(moved(x, channels), moved(target, channels))
    for p, gradient in found.items():
        np.testing.assert_allclose(gradient, getattr(theirs, p).grad, rtol=1e-9, atol=1e-12)
    step(moved(x, channels), moved(target, channels))
    with torch.no_grad():
        for p in theirs.parameters():
            p -= 0.3 * p.grad
    theirs.eval()
    wanted = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(
        ours.predict(moved(x, channels)), moved(wanted, channels), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, channels: str) -> None:
    make, _, shape = CASES[name]
    assert testing.gradcheck(make(channels=channels), moved(RNG.normal(size=shape), channels))


def test_between_convolutions_nothing_is_transposed() -> None:
    """In a net with channels first: one transpose of the input, one of the output."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.Tanh(), nn.Conv2d(8, 2, 3),
    )  # fmt: skip
    with null_device() as null:
        net.predict(np.zeros((2, 3, 12, 12), np.float32))
    assert str(null.programs[-1]).count("copy_strided") <= 2


def test_same_bits_on_any_number_of_workers() -> None:
    x = RNG.normal(size=(33, 3, 8, 8)).astype(np.float32)
    y = RNG.integers(0, 2, 33)
    states = []
    for workers in (1, 2, 3):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.WeightNorm(nn.Conv2d(6, 6, 3)),
            nn.GroupNorm(3, 6), nn.SpectralNorm(nn.Conv2d(6, 4, 2)),
            nn.InstanceNorm2d(4, track_running_stats=True),
            nn.Flatten(), nn.Linear(36, 2),
        )  # fmt: skip
        trainer = fnn.Trainer(net, "cross_entropy", workers=workers)
        trainer.fit(x, y, epochs=2, batch_size=8, verbose=False)
        states.append(net.state_dict())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])


def test_bad_options_and_shapes() -> None:
    with pytest.raises(OptionError, match="divides 6 channels"):
        nn.GroupNorm(4, 6)
    with pytest.raises(OptionError, match="'first' or 'last'"):
        nn.BatchNorm2d(3, channels="middle")
    x = np.zeros((2, 3, 5), np.float32)
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        nn.BatchNorm2d(3).predict(x)
    with pytest.raises(ShapeError, match=r"\(N, 3\) or \(N, T, 3\)"):
        nn.BatchNorm1d(3, channels="last").predict(x)
    with pytest.raises(ShapeError, match=r"\(N, 4, T\)"):
        nn.InstanceNorm1d(4).predict(x)
    with pytest.raises(ShapeError, match="2 numbers in a group"):
        nn.GroupNorm(3, 3).predict(x[:, :, 0])


class _Sequences(nn.Module):
    """Normalised sequences, behind a layer whose gradient is that to the norm's input."""

    def __init__(self) -> None:
        self.before, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4, channels="last")

    def forward(self, x: Any, lengths: Any = None) -> Any:
        return self.norm(self.before(x), *(() if lengths is None else (lengths,)))


def _stepped(dtype: str, inputs: Any, weights: np.ndarray) -> tuple[dict[str, Any], Any]:
    """Gradients and buffers after a step of the sum of outputs times weights."""
    model = _Sequences()
    step = fnn.compile(model, lambda y, w: fnn.ops.sum(y * w), "sgd", dtype=dtype, workers=2,
                       keep_gradients=True)  # fmt: skip
    loss = float(step(inputs, weights))
    found = {name: p.grad.copy() for name, p in model.named_parameters().items() if p.trainable}
    return found | {n: v for n, v in model.state_dict().items() if "running" in n}, loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_of_sequences_is_that_of_their_valid_steps(dtype: str) -> None:
    """As of the valid steps as rows; the same bits however far sequences are padded."""
    rng, lengths = np.random.default_rng(1), np.array([70, 3, 0, 41])
    x, w = rng.normal(size=(4, 70, 3)).astype(dtype), rng.normal(size=(4, 70, 4)).astype(dtype)
    valid = np.arange(70) < lengths[:, None]
    rows, row_loss = _stepped(dtype, x[valid], w[valid])
    x[~valid] = 1e3
    found, loss = _stepped(dtype, (x, lengths), w)
    close = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(loss, row_loss, rtol=close, atol=close)
    for name, value in rows.items():
        np.testing.assert_allclose(found[name], value, rtol=close, atol=close, err_msg=name)
    longer = [np.concatenate([a, np.full((4, 61, a.shape[2]), 7.0, dtype)], 1) for a in (x, w)]
    again, _ = _stepped(dtype, (longer[0], lengths), longer[1])
    for name, value in found.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_batch_norm_of_sequences_by_running_statistics() -> None:
    layer = nn.BatchNorm1d(2)
    layer.running_mean.value, layer.running_var.value = [1.0, -2.0], [4.0, 0.25]
    x = np.random.default_rng(2).normal(size=(3, 2, 6)).astype(np.float32)
    plain, lengths = layer.predict(x), np.array([6, 2, 0])
    beyond = np.arange(6) >= lengths[:, None, None]
    x[np.broadcast_to(beyond, x.shape)] = np.nan
    np.testing.assert_array_equal(layer.predict(x, lengths), np.where(beyond, 0.0, plain))
    with pytest.raises(ShapeError, match="expected sequences"):
        layer.predict(np.zeros((3, 2), np.float32), lengths)


def back(x: np.ndarray, channels: str) -> np.ndarray:
    return x if channels == "first" else np.moveaxis(x, -1, 1)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_norms_of_each_sequence_are_as_alone(groups: int) -> None:
    """Values and gradients beside PyTorch's of each sequence (0 groups: of each channel), whatever
    lies past the ends; the same bits however far sequences are padded, alone and in a batch."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    lengths = np.array([7, 0, 12, 1, 3])
    for channels, dtype in (("first", "float32"), ("last", "float64")):
        rng = np.random.default_rng(groups)
        x, dy = (rng.normal(size=(5, 6, 12)).astype(dtype) for _ in range(2))
        options: dict[str, Any] = {"affine": False, "channels": channels}
        layer = nn.GroupNorm(groups, 6, **options) if groups else nn.InstanceNorm1d(6, **options)

        def of(rows: slice, more: int, layer: Any = layer, x: Any = x, dy: Any = dy) -> list[Any]:
            given, seed = (
                np.pad(a[rows], ((0, 0), (0, 0), (0, more)), constant_values=np.nan)
                for a in (x, dy)
            )
            for k, n in enumerate(lengths[rows]):
                given[k, :, n:] = seed[k, :, n:] = np.nan
            found = results(
                lambda v: layer(v, lengths=lengths[rows]), moved(given, layer.channels),
                seed=moved(seed, layer.channels),
            )  # fmt: skip
            return [back(a, layer.channels) for a in found]

        whole, near = of(slice(5), 0), {"rtol": 1e-4, "atol": 3e-6}
        if dtype == "float64":
            near = {"rtol": 1e-10, "atol": 1e-12}
        for k, n in enumerate(lengths):
            one, longer = of(slice(k, k + 1), 0), of(slice(k, k + 1), 5)
            tensor = torch.tensor(x[k : k + 1, :, :n], requires_grad=True)
            wanted = torch.zeros_like(tensor)
            if n * (6 // groups if groups else 1) > 1:  # PyTorch refuses a single number
                norm = torch.nn.functional.group_norm
                wanted = norm(tensor, groups or 6)
                (wanted * torch.tensor(dy[k : k + 1, :, :n])).sum().backward()
            for a, b, c in zip(whole, one, longer, strict=True):
                np.testing.assert_array_equal(a[k], b[0])
                np.testing.assert_array_equal(c[0, :, :12], b[0])
                assert not c[0, :, n:].any()
            np.testing.assert_allclose(one[0][0, :, :n], wanted[0].detach(), **near)
            if tensor.grad is not None:
                np.testing.assert_allclose(one[1][0, :, :n], tensor.grad[0], **near)
            else:
                assert not one[1].any()


class _Tracked(nn.Module):
    def __init__(self, channels: str) -> None:
        self.norm = nn.InstanceNorm1d(2, 1e-5, 0.3, True, True, channels)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.norm(x, lengths)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_running_statistics_of_sequences(channels: str) -> None:
    """Those of PyTorch over sequences of one length; shorter ones count as often as others, those
    without a variance not at all."""
    rng, layer = np.random.default_rng(5), _Tracked(channels)
    layer.norm.weight.value, layer.norm.bias.value = [2.0, 3.0], [0.5, -1.0]
    x = rng.normal(size=(4, 2, 6)).astype(np.float32)
    lengths = np.array([6, 4, 1, 0])
    beyond = np.broadcast_to(np.arange(6) >= lengths[:, None, None], x.shape)
    given = np.where(beyond, np.nan, x)
    step = fnn.compile(layer, lambda y, w: fnn.ops.sum(y * w), "sgd")
    step.learning_rate = 0.0
    step((moved(given, channels), lengths), moved(np.where(beyond, 0, x), channels))
    parts = [x[0], x[1, :, :4]]
    mean = 0.3 * np.mean([a.mean(1) for a in parts], 0)
    var = 0.7 + 0.3 * np.mean([a.var(1, ddof=1) for a in parts], 0)
    np.testing.assert_allclose(layer.norm.running_mean.value, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.norm.running_var.value, var, rtol=1e-5)
    rest = moved(given[2:], channels), lengths[2:]
    step(rest, moved(np.zeros_like(x[2:]), channels))  # nothing to learn from
    np.testing.assert_allclose(layer.norm.running_mean.value, mean, rtol=1e-5, atol=1e-6)
    y = back(layer.predict(moved(given, channels), lengths), channels)
    scale = np.array([2.0, 3.0]) / np.sqrt(var + 1e-5)
    wanted = (x - mean[:, None]) * scale[:, None] + np.array([[0.5], [-1.0]])
    np.testing.assert_allclose(y, np.where(beyond, 0.0, wanted), rtol=1e-4, atol=1e-5)

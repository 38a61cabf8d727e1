"""Pooling and up-sampling beside PyTorch's: values and gradients over random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from tests.convolved import results
from tests.peers.test_convolution import back, compared, moved

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers


def options_for(rng: np.random.Generator, kind: str, rank: int) -> tuple[tuple[int, ...], Any, Any]:
    """Extents, positional arguments, and options of a random pooling that has an output."""

    def numbers(low: int, most: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(low, most + 1, rank))

    extents = tuple(int(rng.choice([3, 7, 8, 13])) for _ in range(rank))
    if kind == "adaptive_avg_pool":
        size = numbers(1, 9)
        return extents, (size if rank > 1 else size[0],), {}
    while True:
        kernel, dilation = numbers(1, 5), numbers(1, 2) if kind == "max_pool" else (1,) * rank
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        if kind == "lp_pool":
            padding = (0,) * rank
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        if all(s <= n + 2 * p for s, n, p in zip(spans, extents, padding, strict=True)):
            break
    options: dict[str, Any] = {"stride": numbers(1, 3), "ceil_mode": bool(rng.integers(2))}
    if kind == "max_pool":
        options |= {"padding": padding, "dilation": dilation}
    if kind == "avg_pool":
        options |= {"padding": padding, "count_include_pad": bool(rng.integers(2))}
        if rank == 2 and rng.integers(2):
            options["divisor_override"] = 3
    first: tuple[Any, ...] = (kernel if rank > 1 else kernel[0],)
    return extents, (2.0, *first) if kind == "lp_pool" else first, options


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool"])
def test_random_shapes(kind: str, rank: int, number: int) -> None:
    for part in range(4):
        rng = np.random.default_rng([number, part, rank])
        extents, args, options = options_for(rng, kind, rank)
        channels, dtype = ("first", "last")[part % 2], ("float32", "float64")[part // 2]
        shape = (int(rng.integers(1, 4)), int(rng.choice([1, 3, 17])), *extents)
        x = rng.permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        y = getattr(torch.nn.functional, f"{kind}{rank}d")(tensor, *args, **options)
        dy = rng.normal(size=tuple(y.shape)).astype(dtype)
        y.backward(torch.tensor(dy))
        function = getattr(ops, f"{kind}{rank}d")
        got = results(
            lambda v, f=function, a=args, o=options, ch=channels: f(v, *a, **o, channels=ch),
            moved(x, channels), seed=moved(dy, channels),
        )  # fmt: skip
        compared([back(v, channels) for v in got], [y, tensor.grad], dtype)


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize(
    ("shape", "options", "theirs"),
    [
        ((2, 3, 5), {"scale_factor": 3}, {"scale_factor": 3.0, "mode": "nearest"}),
        ((2, 3, 5), {"size": 8}, {"size": 8, "mode": "nearest"}),
        ((2, 3, 5), {"size": 8, "mode": "linear"}, {"size": 8, "mode": "linear"}),
        ((2, 3, 4, 5), {"scale_factor": (2, 3)}, {"scale_factor": (2, 3), "mode": "nearest"}),
        ((2, 3, 4, 5), {"scale_factor": 1.7}, {"scale_factor": 1.7, "mode": "nearest"}),
        ((2, 3, 4, 5), {"size": (3, 9)}, {"size": (3, 9), "mode": "nearest"}),
        (
            (2, 3, 4, 5), {"scale_factor": 2, "mode": "bilinear"},
            {"scale_factor": 2, "mode": "bilinear"},
        ),
        (
            (2, 3, 4, 5), {"size": (7, 3), "mode": "linear", "align_corners": True},
            {"size": (7, 3), "mode": "bilinear", "align_corners": True},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_upsample(shape: Any, options: Any, theirs: Any, channels: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.interpolate(tensor, **theirs)
    dy = rng.normal(size=tuple(y.shape))
    y.backward(torch.tensor(dy))
    got = results(
        lambda v: ops.upsample(v, **options, channels=channels), moved(x, channels),
        seed=moved(dy, channels),
    )  # fmt: skip
    compared([back(v, channels) for v in got], [y, tensor.grad], "float64")


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize(
    ("extents", "window"),
    [((5, 6), (3, 2, 1)), ((4, 7), (2, 2)), ((7, 4), (2, 2)), ((5, 4), (2, 1))],
)
def test_the_first_of_equal_maxima(extents: Any, window: Any, count: int) -> None:
    """It alone has the gradient, and its tangent is the maximum's; also where windows leave out
    the last line or column."""
    rng = np.random.default_rng(5)
    x = rng.integers(0, 2, (2, count, *extents)).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    y, places = torch.nn.functional.max_pool2d(tensor, *window, return_indices=True)
    dy, v = (rng.normal(size=shape).astype(np.float32) for shape in (tuple(y.shape), x.shape))
    y.backward(torch.tensor(dy))
    got = results(lambda a: ops.max_pool2d(a, *window), x, seed=dy)
    compared(got, [y, tensor.grad], "float32")
    (along,) = results(lambda a, b: ops.tangent(ops.max_pool2d(a, *window), a, b), x, v, seed=None)
    flat, at = v.reshape(2, count, -1), places.numpy().reshape(2, count, -1)
    np.testing.assert_array_equal(along, np.take_along_axis(flat, at, 2).reshape(along.shape))


def test_nan_is_the_largest() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    x[0, 1, 2, 3] = np.nan
    want = torch.nn.functional.max_pool2d(torch.tensor(x), 3, 2).numpy()
    np.testing.assert_array_equal(nn.MaxPool2d(3, 2).predict(x), want)


def test_lenet_trains_as_pytorchs() -> None:
    """Ten steps from the same parameters, with PyTorch's layout and order of features."""
    import fastnn as fnn
    from fastnn import optim

    def layers(module: Any) -> list[Any]:
        return [
            module.Conv2d(1, 6, 5, padding=2), module.ReLU(), module.MaxPool2d(2),
            module.Conv2d(6, 16, 5), module.ReLU(), module.AvgPool2d(2), module.Flatten(),
            module.Linear(400, 10),
        ]  # fmt: skip

    model, peer = nn.Sequential(*layers(nn)), torch.nn.Sequential(*layers(torch.nn))
    peer.load_state_dict({n: torch.tensor(v) for n, v in model.state_dict().items()})
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(16, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 16)
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.05))
    theirs = torch.optim.SGD(peer.parameters(), lr=0.05)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(peer(torch.tensor(x)), torch.tensor(t))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert float(step(x, t)) == pytest.approx(loss.item(), rel=1e-4)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, peer.state_dict()[name].numpy(), rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_nearest_places_are_pytorchs(rank: int) -> None:
    """Which place is the nearest is a matter of rounding: PyTorch's is that of float32, and for
    images of up to twice the size not even the factor counts."""
    for count in (1, 3, 5, 7, 9, 13, 29, 41):
        x = np.broadcast_to(np.arange(count, dtype=np.float32), (1, 1, *[1] * (rank - 1), count))
        for scale in (0.7, 1.2, 1.7, 2.0, 2.3, 3.3):
            if int(count * scale) < 1:
                continue
            factors = scale if rank == 1 else (1.0, scale)
            want = torch.nn.Upsample(scale_factor=factors)(torch.tensor(x)).numpy()
            got = nn.Upsample(scale_factor=factors).predict(x)
            np.testing.assert_array_equal(got, want)
        for places in (3, 10, 15, 26, 41, 82, 100):
            size = places if rank == 1 else (1, places)
            want = torch.nn.Upsample(size=size)(torch.tensor(x)).numpy()
            np.testing.assert_array_equal(nn.Upsample(size=size).predict(x), want)


def test_upsamples_default_is_pytorchs() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    options: dict[str, Any] = {"scale_factor": 2, "mode": "bilinear", "align_corners": None}
    wanted = torch.nn.Upsample(**options)(torch.tensor(x))
    np.testing.assert_allclose(nn.Upsample(**options).predict(x), wanted, rtol=1e-5, atol=1e-6)

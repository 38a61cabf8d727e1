"""Convolutions beside PyTorch's: values and all gradients over random shapes, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import ops
from fastnn.kernels.convolution.shared import tiled
from tests.convolved import results

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers

#: of float32 and float64, as a share of the largest element
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def compared(ours: list[np.ndarray], theirs: list[Any], dtype: str) -> None:
    assert len(ours) == len(theirs)
    for got, tensor in zip(ours, theirs, strict=True):
        want = tensor.detach().numpy()
        assert got.shape == want.shape
        np.testing.assert_allclose(
            got, want, rtol=0, atol=TOLERANCE[dtype] * max(1.0, abs(want).max())
        )


def moved(x: np.ndarray, channels: str) -> np.ndarray:
    """An array of PyTorch's layout in the one that is tried."""
    return x if channels == "first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))


def back(x: np.ndarray, channels: str) -> np.ndarray:
    return x if channels == "first" else np.moveaxis(x, -1, 1)


def numbers_for(rng: np.random.Generator, rank: int, transposed: bool) -> dict[str, Any]:
    """A random convolution that has an output; groups from 1 to the channels, of which half the
    time there is one."""
    while True:
        groups = int(rng.integers(1, 10)) if rng.integers(2) else 1
        group, own = (int(rng.integers(1, 6)) for _ in range(2))
        if groups > 4 and rng.integers(3) == 0:  # each channel on its own, and more of them
            groups, group, own = groups * int(rng.integers(1, 4)), 1, int(rng.integers(1, 3))
        kernel, stride, dilation = (
            tuple(int(n) for n in rng.integers(1, most + 1, rank)) for most in (7, 3, 4)
        )
        extents = tuple(int(rng.choice([1, 5, 8, 13, 16, 21])) for _ in range(rank))
        padding = tuple(int(rng.integers(0, k)) for k in kernel)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        case = {
            "batch": int(rng.choice([1, 2, 5])), "groups": groups, "inputs": group * groups,
            "outputs": own * groups, "kernel": kernel, "stride": stride, "dilation": dilation,
            "padding": padding, "extents": extents,
        }  # fmt: skip
        if transposed:
            more = tuple(
                int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)
            )
            case["more"] = more
            sizes = [
                (n - 1) * s - 2 * p + span + m
                for n, s, p, span, m in zip(extents, stride, padding, spans, more, strict=True)
            ]
            if min(sizes) > 0 and max(sizes) < 60:
                return case
        elif all(s <= n + 2 * p for s, n, p in zip(spans, extents, padding, strict=True)):
            return case


@pytest.mark.parametrize("number", range(16))
@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"])
def test_random_shapes(kind: str, number: int) -> None:
    """Five shapes each, 320 in all."""
    rank, transposed = 1 if "1d" in kind else 2, "transpose" in kind
    for part in range(5):
        rng = np.random.default_rng([number, part, rank, transposed])
        c = numbers_for(rng, rank, transposed)
        dtype = ("float32", "float64")[(number + part) % 2]
        channels = ("first", "last")[part // 2 % 2]
        x, w, b = (
            rng.normal(size=shape).astype(dtype)
            for shape in (
                (c["batch"], c["inputs"], *c["extents"]),
                (c["inputs"], c["outputs"] // c["groups"], *c["kernel"])
                if transposed
                else (c["outputs"], c["inputs"] // c["groups"], *c["kernel"]),
                (c["outputs"],),
            )
        )
        options = {name: c[name] for name in ("stride", "padding", "dilation", "groups")}
        if transposed:
            options["output_padding"] = c["more"]
        tensors = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
        y = getattr(torch.nn.functional, kind)(*tensors, **options)
        dy = rng.normal(size=tuple(y.shape)).astype(dtype)
        y.backward(torch.tensor(dy))

        function = getattr(ops, kind)
        got = results(
            lambda *v, f=function, o=options, ch=channels: f(*v, **o, channels=ch),
            moved(x, channels), w, b, seed=moved(dy, channels),
        )  # fmt: skip
        got[0], got[1] = (back(v, channels) for v in got[:2])
        compared(got, [y, *(t.grad for t in tensors)], dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_where_zeros_are(kernel: int) -> None:
    """Of an odd number of them "same" has the smaller half in front, whatever the stride, and
    "causal" has all; a kernel of 1 has zeros, too, where it is told to."""
    rng = np.random.default_rng(kernel)
    x, w = rng.normal(size=(2, 3, 9)), rng.normal(size=(4, 3, kernel))
    for stride, dilation in ((1, 1), (1, 3), (3, 2)):
        span = dilation * (kernel - 1)
        paddings: dict[Any, tuple[int, int]] = {
            "same": (span // 2, span - span // 2), "causal": (span, 0), 2: (2, 2),
        }  # fmt: skip
        for padding, both in paddings.items():
            image = torch.nn.functional.pad(torch.tensor(x), both)
            want = torch.nn.functional.conv1d(
                image, torch.tensor(w), stride=stride, dilation=dilation
            )
            a = {"stride": stride, "padding": padding, "dilation": dilation}
            got = results(lambda *v, a=a: ops.conv1d(*v, **a), x, w, seed=None)
            compared(got, [want], "float64")
            if padding == "same":  # rows of an image of one column: zeros below alone
                a |= {"stride": (stride, 1), "dilation": (dilation, 1)}
                rows = results(
                    lambda *v, a=a: ops.conv2d(*v, **a), x[..., None], w[..., None], seed=None
                )
                compared([rows[0][..., 0]], [want], "float64")
            if padding == "same" and stride == 1:
                a |= {"stride": 1, "dilation": dilation}
                theirs = torch.nn.functional.conv1d(torch.tensor(x), torch.tensor(w), **a)
                compared(got, [theirs], "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
def test_3x3_by_tiles(padding: Any, dtype: str) -> None:
    """Of shapes for which `cpu_winograd.py` is chosen; on any number of workers."""
    rng = np.random.default_rng(padding)
    x, w, b = (
        rng.normal(size=shape).astype(dtype) for shape in ((3, 32, 12, 10), (48, 32, 3, 3), (48,))
    )
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
    y = torch.nn.functional.conv2d(*tensors, padding=padding)
    dy = rng.normal(size=tuple(y.shape)).astype(dtype)
    y.backward(torch.tensor(dy))

    def found(workers: int) -> list[np.ndarray]:
        return results(
            lambda *v: ops.conv2d(*v, padding=padding), x, w, b, seed=dy, workers=workers
        )

    one = found(1)
    compared(one, [y, *(t.grad for t in tensors)], dtype)
    for got in (found(2), found(3)):
        for this, that in zip(got, one, strict=True):
            np.testing.assert_array_equal(this, that)


def test_which_convolutions_go_by_tiles() -> None:
    plain = dict.fromkeys(("stride_h", "stride_w", "dilation_h", "dilation_w", "groups"), 1)
    x, w, y = (8, 28, 28, 32), (3, 3, 32, 64), (8, 28, 28, 64)
    assert tiled(x, w, y, plain, 4, 8)
    others = [
        (w, y, plain | {"stride_w": 2}), (w, y, plain | {"groups": 2}),
        ((3, 5, 32, 64), y, plain), ((3, 3, 16, 64), y, plain), ((3, 3, 32, 68), y, plain),
        (w, (8, 27, 28, 64), plain), (w, (8, 6, 6, 64), plain), (w, (8, 128, 128, 64), plain),
    ]  # fmt: skip
    assert not any(tiled(x, *other, 4, 8) for other in others)

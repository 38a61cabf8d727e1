"""Sequences of different lengths beside PyTorch, which computes each one alone: values and
gradients over random shapes, in both layouts; and places of maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import ops
from tests.convolved import results
from tests.peers.test_convolution import back, compared, moved

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers
KINDS = ("conv_transpose1d", "lp_pool1d", "adaptive_avg_pool1d", "upsample")


def random_case(rng: np.random.Generator, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of ours and of PyTorch's that give every length an output."""
    few = [int(n) for n in rng.integers(1, 4, 4)]
    if kind == "conv_transpose1d":
        options: dict[str, Any] = {"stride": few[0], "dilation": few[1], "padding": few[2] % 2}
        options["output_padding"] = int(rng.integers(0, max(few[:2])))
        return options, options
    if kind == "lp_pool1d":
        options = {"norm_type": float(few[0]), "kernel_size": few[1], "stride": few[2]}
        return options, options
    if kind == "adaptive_avg_pool1d":
        options = {"output_size": int(rng.integers(1, 12))}
        return options, options
    size: dict[str, Any] = {"size": int(rng.integers(1, 20))}
    if rng.integers(2):
        size = {"scale_factor": float(rng.choice([1 / 3, 0.7, 1.0, 1.3, 2.0, 3.7]))}
    mode = str(rng.choice(["nearest", "linear"]))
    corners = bool(rng.integers(2)) if mode == "linear" else None
    options = {**size, "mode": mode, "align_corners": corners}
    return options, options


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_random_shapes(kind: str, number: int) -> None:
    theirs = torch.nn.functional.interpolate if kind == "upsample" else None
    theirs = theirs or getattr(torch.nn.functional, kind)
    for part in range(4):
        rng = np.random.default_rng([number, part, KINDS.index(kind)])
        channels, dtype = ("first", "last")[part % 2], ("float32", "float64")[part // 2]
        options, others = random_case(rng, kind)
        lengths = rng.integers(4, 14, 3)
        count = int(rng.choice([1, 3, 17]))
        x = rng.uniform(0.1, 1.0, (3, count, 14)).astype(dtype)
        weights = []
        if kind == "conv_transpose1d":
            weights = [rng.normal(size=(count, 2, int(rng.integers(2, 5)))).astype(dtype)]
            weights.append(rng.normal(size=2).astype(dtype))
        tensors = [torch.tensor(v, requires_grad=True) for v in (x, *weights)]
        wanted = [
            theirs(tensors[0][k : k + 1, :, :n], *tensors[1:], **others)
            for k, n in enumerate(lengths)
        ]

        def ours(v: Any, *w: Any, o: Any = options, ch: str = channels, n: Any = lengths) -> Any:
            found = getattr(ops, kind)(v, *w, **o, channels=ch, lengths=n)
            return found[0] if isinstance(found, tuple) else found

        given = x.copy()
        for k, n in enumerate(lengths):
            given[k, :, n:] = np.nan
        (y,) = results(ours, moved(given, channels), *weights, seed=None)
        dy = rng.normal(size=back(y, channels).shape).astype(dtype)
        ends = [t.shape[2] for t in wanted]
        sum(
            (t * torch.tensor(dy[k : k + 1, :, :end])).sum()
            for k, (t, end) in enumerate(zip(wanted, ends, strict=True))
        ).backward()
        got = results(ours, moved(given, channels), *weights, seed=moved(dy, channels))
        values = torch.zeros(dy.shape, dtype=tensors[0].dtype)
        for k, (t, end) in enumerate(zip(wanted, ends, strict=True)):
            values[k, :, :end] = t[0]
        got[:2] = [back(v, channels) for v in got[:2]]
        compared(got, [values, *(t.grad for t in tensors)], dtype)


@pytest.mark.parametrize("rank", [1, 2])
def test_places_of_maxima(rank: int) -> None:
    """Of equal elements the first; none in the padding."""
    for part in range(6):
        rng = np.random.default_rng([part, rank])
        channels, dtype = ("first", "last")[part % 2], ("float32", "float64")[part // 2 % 2]
        kernel, stride, dilation = (
            tuple(int(n) for n in rng.integers(1, most + 1, rank)) for most in (4, 3, 2)
        )
        options: dict[str, Any] = {
            "padding": tuple(k // 2 for k in kernel), "stride": stride, "dilation": dilation,
            "ceil_mode": bool(rng.integers(2)),
        }  # fmt: skip
        shape = (2, int(rng.choice([1, 3, 9])), *(int(n) for n in rng.integers(8, 12, rank)))
        x = rng.integers(-3, 3, shape).astype(dtype)
        if part == 5:
            x[...] = -np.inf
        pool = getattr(torch.nn.functional, f"max_pool{rank}d")
        y, places = pool(torch.tensor(x), kernel, **options, return_indices=True)

        class Model(fnn.nn.Module):
            def forward(self, x: Any, o: Any = options, k: Any = kernel, ch: str = channels) -> Any:
                name = f"max_pool{rank}d"
                return getattr(ops, name)(x, k, **o, channels=ch, return_indices=True)

        got, at = Model().to(dtype).predict(moved(x, channels))
        assert at.dtype == np.int64
        np.testing.assert_array_equal(back(got, channels), y.numpy())
        np.testing.assert_array_equal(back(at, channels), places.numpy())

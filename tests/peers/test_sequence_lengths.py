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


def pooled_alone(pool: Any, x: Any, *options: Any, **more: Any) -> list[Any]:
    """PyTorch's results for one sequence; none where it is too short for a window."""
    try:
        found = pool(x, *options, **more) if x.shape[2] else ()
    except RuntimeError:
        return []
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("kind", ["max_pool1d", "avg_pool1d", "lp_pool1d"])
def test_windows_over_the_ends(kind: str) -> None:
    """Maxima with their places, averages and norms, of sequences of any length."""
    lengths, pool = np.array([0, 1, 2, 3, 5, 8, 12]), getattr(torch.nn.functional, kind)
    for part in range(8):
        rng = np.random.default_rng([part, len(kind)])
        channels, dtype = ("first", "last")[part % 2], ("float32", "float64")[part // 2 % 2]
        kernel, stride = (int(n) for n in rng.integers(1, 5, 2))
        options: dict[str, Any] = {"ceil_mode": part % 4 < 3}
        if kind != "lp_pool1d":
            options["padding"] = int(rng.integers(kernel // 2 + 1))
        if kind == "avg_pool1d":
            options["count_include_pad"] = bool(rng.integers(2))
        more = {"return_indices": True} if kind == "max_pool1d" else {}
        first = (3.0,) if kind == "lp_pool1d" else ()
        x = rng.integers(1 if kind == "lp_pool1d" else -3, 4, (7, 9, 12)).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        wanted = [
            pooled_alone(pool, tensor[k : k + 1, :, :n], *first, kernel, stride, **options, **more)
            for k, n in enumerate(lengths)
        ]
        for k, n in enumerate(lengths):
            x[k, :, n:] = np.nan

        def ours(v: Any, n: Any = lengths, **o: Any) -> Any:
            return getattr(ops, kind)(v, *first, kernel, stride, **o, lengths=n)  # noqa: B023

        class Model(fnn.nn.Module):
            def forward(self, x: Any, n: Any, o: Any = options, ch: str = channels) -> Any:
                return ours(x, n, **o, **more, channels=ch)  # noqa: B023

        y, *places, ends = Model().to(dtype).predict(moved(x, channels), lengths)
        np.testing.assert_array_equal(ends, [t[0].shape[2] if t else 0 for t in wanted])
        dy = rng.normal(size=back(y, channels).shape).astype(dtype)
        _, dx = results(
            lambda v, o=options, ch=channels: ours(v, **o, channels=ch)[0],
            moved(x, channels), seed=moved(dy, channels),
        )  # fmt: skip
        near = {"rtol": 2e-5 if dtype == "float32" else 1e-11, "atol": 1e-5}
        for k, found in enumerate(wanted):
            got = back(y, channels)[k]
            assert not got[:, ends[k] :].any()
            if found:
                np.testing.assert_allclose(got[:, : ends[k]], found[0][0].detach(), **near)
                (found[0] * torch.tensor(dy[k : k + 1, :, : ends[k]])).sum().backward()
            if places:
                at = back(places[0], channels)[k]
                assert at.dtype == np.int64
                assert (at[:, ends[k] :] == -1).all()
                if found:
                    np.testing.assert_array_equal(at[:, : ends[k]], found[1][0])
        np.testing.assert_allclose(back(dx, channels), tensor.grad, **near)


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

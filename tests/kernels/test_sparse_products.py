"""Products that leave zeros out: the bits of those that do not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastnn.kernels import simd
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import Kernel
from fastnn.kernels.matmul import cpu as matmul
from fastnn.kernels.matmul import cpu_sparse, cpu_sparse_gradients
from fastnn.kernels.matmul.cpu_blocked import scratch_columns
from fastnn.testing.kernels import call

TYPES = ("float32", "float64")


def factors(n: int, c: int, k: int, dtype: str, share: float) -> dict[str, np.ndarray]:
    """x, of which this share is not 0, w, bias and dy."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((n, c)) < share, rng.standard_normal((n, c)), 0.0)
    x[0], x[-1] = 0.0, x[-1] * -0.0  # rows of zeros of both signs
    more = {"w": (c, k), "bias": (k,), "dy": (n, k)}
    found = {"x": x} | {name: rng.standard_normal(shape) for name, shape in more.items()}
    return {name: value.astype(dtype) for name, value in found.items()}


def scratch(items: int, depth: int, dtype: str) -> dict[str, np.ndarray]:
    size = np.dtype(dtype).itemsize
    return {
        "words": np.full((items, cpu_sparse.words_needed(depth)), -1, np.int64),
        "room": np.full((items, cpu_sparse.room_needed(size)), np.nan, dtype),
    }


def run(kernel: Kernel, shape: tuple[int, ...], cuts: tuple[int, ...], out: str, **given: Any):
    result = np.full(shape, np.nan, next(iter(given.values())).dtype)
    edges = [0, *(cut for cut in cuts if cut < shape[0]), shape[0]]
    for lo, hi in itertools.pairwise(edges):
        call(kernel, lo, hi, **given, **{out: result})
    return result


def forward(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """x @ w + bias without zeros and with them."""
    given = {name: f[name] for name in ("x", "w", "bias")}
    shape, dtype = (len(f["x"]), f["w"].shape[1]), f["x"].dtype.name
    room = scratch(*f["x"].shape, dtype)
    return (run(cpu_sparse.linear_forward_sparse, shape, cuts, "y", **given, **room),
            run(matmul.linear_forward, shape, (), "y", **given))  # fmt: skip


def blocks(x: np.ndarray) -> dict[str, np.ndarray]:
    """Scratch memory for words, and for blocks of the other factor."""
    columns = scratch_columns(len(x), x.itemsize)
    words = scratch(*x.shape, x.dtype.name)["words"]
    return {"words": words, "scratch": np.full((len(x), columns), np.nan, x.dtype)}


def large(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """x @ w + bias by blocks of w, without zeros and with them."""
    given = {name: f[name] for name in ("x", "w", "bias")}
    shape, room = (len(f["x"]), f["w"].shape[1]), blocks(f["x"])
    return (run(cpu_sparse.linear_forward_blocked_sparse, shape, cuts, "y", **given, **room),
            run(matmul.linear_forward, shape, (), "y", **given))  # fmt: skip


def weight(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """x.T @ dy, likewise."""
    given = {"x": f["x"], "dy": f["dy"]}
    shape, dtype = f["w"].shape, f["x"].dtype.name
    room = scratch(*f["x"].shape[::-1], dtype)
    return (run(cpu_sparse.linear_backward_weight_sparse, shape, cuts, "dw", **given, **room),
            run(matmul.linear_backward_weight, shape, (), "dw", **given))  # fmt: skip


def gradient(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """x @ w, as the gradient x of a layer with the weight w.T to its inputs."""
    dy, w = f["x"], f["w"][:, : f["w"].shape[1] // 16 * 16].T.copy()
    shape, dtype = (len(dy), len(w)), dy.dtype.name
    packed = np.empty(matmul.packed_shape(*w.shape[::-1], dy.itemsize), dtype)
    call(matmul.pack_panels_transposed, w=w, packed=packed)
    given, room = {"dy": dy, "w_packed": packed}, scratch(*dy.shape, dtype)
    return (run(cpu_sparse_gradients.linear_backward_input_sparse, shape, cuts, "dx", **given,
                **room),
            run(matmul.linear_backward_input, shape, (), "dx", **given))  # fmt: skip


def large_gradient(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[Any, ...]:
    """The same by blocks of the weight as it is."""
    dy, w = f["x"], f["w"].T.copy()
    return (run(cpu_sparse_gradients.linear_backward_input_blocked_sparse, (len(dy), len(w)), cuts,
                "dx", dy=dy, w=w, **blocks(dy)),
            run(matmul.linear_forward, (len(dy), len(w)), (), "y", x=dy, w=f["w"],
                bias=f["bias"][:0]))  # fmt: skip


def turned(f: dict[str, np.ndarray], cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """dy.T @ x, as the gradient x of a layer with the inputs dy to its weight."""
    x, dy = f["dy"], f["x"]
    shape, dtype = (x.shape[1], dy.shape[1]), x.dtype.name
    items, given = shape[0], {"x": x, "dy": dy}
    room = {
        "words": np.full((items, cpu_sparse_gradients.turned_words(shape[1], len(x))), -1),
        "room": np.full(
            (items, cpu_sparse_gradients.turned_room(shape[1], x.itemsize)), np.nan, dtype
        ),
    }
    name = cpu_sparse_gradients.linear_backward_weight_turned_sparse
    return (run(name, shape, cuts, "dw", **given, **room).T,
            run(matmul.linear_backward_weight, shape, (), "dw", **given).T)  # fmt: skip


PRODUCTS = (forward, large, weight, gradient, large_gradient, turned)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.55, 1.0])
@pytest.mark.parametrize(
    ("n", "c", "k"), [(64, 64, 128), (67, 203, 149), (129, 65, 131), (70, 300, 256), (16, 63, 200)]
)
def test_same_bits(n: int, c: int, k: int, share: float, dtype: str) -> None:
    f = factors(n, c, k, dtype, share)
    for cuts in ((), (1, 5, 21, 40), (32, 64), (64, 130)):
        for product in PRODUCTS:
            found, wanted = product(f, cuts)
            assert np.array_equal(found, wanted), (product.__name__, cuts)
    f["bias"] = f["bias"][:0]
    assert np.array_equal(*forward(f))


@pytest.mark.parametrize("dtype", TYPES)
def test_nothing_is_written_beside_the_scratch_memory(dtype: str) -> None:
    """Of the fewest rows that a range may have: what each of them brings is rounded up."""
    size = np.dtype(dtype).itemsize
    fewest = max(cpu_sparse.WORD, cpu_sparse.SUMS * target.host().lanes(size))
    rows = 2 * fewest
    for columns in (64, 127):
        f = factors(70, columns, rows, dtype, 0.3)
        for name, per_row, letter in (
            ("words", cpu_sparse_gradients.turned_words(columns, 70), np.int64),
            ("room", cpu_sparse_gradients.turned_room(columns, size), dtype),
        ):
            more = {
                other: np.zeros((rows, 1000), kind)
                for other, kind in (("words", np.int64), ("room", dtype))
                if other != name
            }
            memory = np.full((rows, per_row), -1, letter)
            call(cpu_sparse_gradients.linear_backward_weight_turned_sparse, 0, fewest,
                 x=f["dy"], dy=f["x"], dw=np.empty((rows, columns), dtype), **{name: memory},
                 **more)  # fmt: skip
            assert (memory[:fewest] != -1).any()
            assert (memory[fewest:] == -1).all(), (name, columns)


@pytest.mark.parametrize("share", [0.5, 0.65, 1.0])
def test_zeros_are_left_out_where_they_are_many(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by a Python twin of the product without zeros that is not called."""
    dtype, full = "float32", []
    f = factors(128, 256, 128, dtype, share)
    for module in (cpu_sparse, cpu_sparse_gradients):
        monkeypatch.setattr(module, "product", lambda *given: full.append(1))
        monkeypatch.setattr(module, "blocked_product", lambda *given: full.append(1))
    y, dw = np.empty((128, 128), dtype), np.empty((256, 128), dtype)
    given = {name: f[name] for name in ("x", "w", "bias")}
    room = scratch(128, 256, dtype)
    cpu_sparse.linear_forward_sparse(**given, y=y, **room, lo=0, hi=32)
    cpu_sparse.linear_forward_blocked_sparse(
        **given, y=y, words=room["words"], scratch=room["room"], lo=0, hi=32
    )
    cpu_sparse.linear_backward_weight_sparse(
        x=f["x"], dy=f["dy"], dw=dw, **scratch(256, 128, dtype), lo=0, hi=64
    )
    cpu_sparse_gradients.linear_backward_input_sparse(
        dy=f["x"], w_packed=np.zeros(matmul.packed_shape(256, 128, 4), dtype), dx=y,
        **scratch(128, 256, dtype), lo=0, hi=32,
    )  # fmt: skip
    cpu_sparse_gradients.linear_backward_input_blocked_sparse(
        dy=f["x"], w=f["w"].T, dx=y, words=room["words"], scratch=room["room"], lo=0, hi=32
    )
    assert len(full) == (0 if share == 0.5 else 5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_zeros_times_what_is_not_finite_are_nan(bad: float, dtype: str) -> None:
    """As everywhere else, whichever rows and columns a worker has."""
    f = factors(128, 256, 150, dtype, 0.3)
    f["x"][:, 200] = f["x"][77] = 0.0
    f["w"][200, 140] = f["dy"][77, 140] = bad
    for product in PRODUCTS:
        for cuts in ((), (32, 64)):
            found, plain = product(f, cuts)
            assert np.isnan(found[:, 140]).all()
            assert np.isfinite(found[:, :140]).all()
            assert np.array_equal(found, plain, equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_sums_that_underflow_keep_their_sign(dtype: str) -> None:
    """-0 plus 0 is 0: what is left out has to be added."""
    f, tiny = factors(128, 256, 150, dtype, 0.3), np.sqrt(np.finfo(dtype).tiny) * 1e-8
    f["x"][5] = f["x"][:, 7] = 0.0
    f["x"][5, 3], f["w"][3], f["x"][3, 7], f["dy"][3] = tiny, -tiny, tiny, -tiny
    f["bias"] = f["bias"][:0]
    for product in PRODUCTS:
        found, plain = product(f)
        assert found.tobytes() == plain.tobytes(), product.__name__


@pytest.mark.parametrize("bits", [(), (0,), (63,), (0, 63), (1, 2, 40), tuple(range(64))])
def test_words_of_plain_python(bits: tuple[int, ...]) -> None:
    """The sign bit included."""
    x = np.zeros(64, np.float32)
    x[list(bits)] = 3.0
    word = cpu_sparse.bits_of(x, 0, 64, 2.0 ** np.arange(16, dtype=np.float32))
    assert isinstance(word, np.int64)
    assert int(word) & (1 << 64) - 1 == sum(1 << bit for bit in bits)
    assert cpu_sparse.count_bits(word) == len(bits)


@pytest.mark.skipif(not target.host().has_fma, reason="without FMA products are rounded")
def test_python_twins_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """(A vector has as many lanes as the compiled code's.)"""
    lanes = target.host().lanes(4)
    monkeypatch.setattr(simd, "TWIN_LANES", {4: lanes, 8: lanes // 2})
    f = factors(64, 66, 8 * lanes, "float32", 0.3)
    room = {name: f[name] for name in ("x", "w", "bias")}
    y, dw = np.full((64, 8 * lanes), np.nan, "float32"), np.full_like(f["w"], np.nan)
    big = {"room": np.full((66, 64 * 8 * lanes // 64), np.nan, "float32")}
    words = {"words": np.full((66, 2), -1, np.int64)}
    cpu_sparse.linear_forward_sparse(
        **room, y=y, words=words["words"][:64], room=big["room"][:64], lo=0, hi=64
    )
    assert np.array_equal(y, forward(f)[1])
    cpu_sparse.linear_backward_weight_sparse(
        x=f["x"], dy=f["dy"], dw=dw, words=words["words"][:, :1].copy(), room=big["room"], lo=0,
        hi=66,
    )  # fmt: skip
    assert np.array_equal(dw, weight(f)[1])
    turned_dw, width = np.full((8 * lanes, 66), np.nan, "float32"), 8 * lanes
    cpu_sparse_gradients.linear_backward_weight_turned_sparse(
        x=f["dy"], dy=f["x"], dw=turned_dw, lo=0, hi=width,
        words=np.full((width, cpu_sparse_gradients.turned_words(66, 64)), -1),
        room=np.full((width, cpu_sparse_gradients.turned_room(66, 4)), np.nan, "float32"),
    )  # fmt: skip
    assert np.array_equal(turned_dw.T, turned(f)[1])
    w = f["w"].T.copy()
    packed = np.empty(matmul.packed_shape(66, width, 4), "float32")
    call(matmul.pack_panels_transposed, w=w, packed=packed)
    cpu_sparse_gradients.linear_backward_input_sparse(
        dy=f["x"], w_packed=packed, dx=y, words=words["words"][:64], room=big["room"][:64], lo=0,
        hi=64,
    )  # fmt: skip
    assert np.array_equal(y, gradient(f)[1])

"""The guard's kernels on CUDA."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn.kernels.guard.cuda  # noqa: F401  (declares the kernels)
from fastnn import optim
from fastnn.kernels import control_block
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.test_step import block_of


@pytest.mark.parametrize("value", [9e4, 1e5, -np.inf, np.nan])
def test_check(value: float) -> None:
    x, guard = np.full((3, 5), value, np.float32), np.zeros(control_block.GUARD_LENGTH, np.int64)
    call_cuda(CUDA_KERNELS["check_size"], x=x, guard=guard, limit=1e5)
    assert guard[control_block.DOUBT] == (not abs(value) < 1e5)


@pytest.mark.parametrize(
    ("value", "large", "broken"), [(1.0, 0, 0), (1e20, 1, 0), (np.inf, 1, 1), (np.nan, 1, 1)]
)
def test_gradients_are_divided_and_looked_at_in_one_launch(
    value: float, large: int, broken: int
) -> None:
    x, guard = np.full((3, 5), 4 * value, np.float32), np.zeros(control_block.GUARD_LENGTH, int)
    x[0] = 1.0
    y = np.full_like(x, np.nan)
    kernel = CUDA_KERNELS["unscale_checked"]
    call_cuda(kernel, x=x, inverse=np.float32([0.25]), y=y, guard=guard, limit=1e18)
    np.testing.assert_array_equal(y, x * np.float32(0.25))
    assert (guard[control_block.DOUBT], guard[control_block.OVERFLOW]) == (large, broken)


def test_a_mean_s_gradient_by_one_block() -> None:
    dx = np.full(5, np.nan, np.float32)
    call_cuda(CUDA_KERNELS["mean_backward_few"], dy=np.float32([65536.0]), dx=dx)
    np.testing.assert_array_equal(dx, np.full(5, np.float32(65536) / 5, np.float32))


def saving(
    name: str, size: int, doubt: int, rate: float = 1.0, always: int = 0, limit: float = np.inf
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """An update that saves what it changes: what there was, what there is, and the guard."""
    rule = {"sgd": optim.SGD(), "adam": optim.Adam(amsgrad=True)}[name]
    kernel = CUDA_KERNELS[rule.kernels()[1] + "_saving"]
    rng = np.random.default_rng(1)
    before = {n: rng.random((1, size)).astype(np.float32) for n in ("p", *rule.slots)}
    after = {n: v.copy() for n, v in before.items()}
    after |= {f"saved_{n}": np.zeros((1, size), np.float32) for n in before}
    guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
    guard[control_block.DOUBT] = doubt
    hyper = np.full(rule.hyper_size, 0.1, np.float32)
    hyper[:4] = 0, 1, limit, 1
    call_cuda(
        kernel, **after, g=rng.random((1, size)).astype(np.float32), hyper=hyper, scale=None,
        guard=guard, control=block_of(), schedule=np.full((1, 1), float(rate)), always=always,
    )  # fmt: skip
    return before, after, guard


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("size", [1, 3, 4, 7, 1030])
@pytest.mark.parametrize(
    ("doubt", "rate", "always"), [(1, 1, 0), (0, 1e9, 0), (0, np.nan, 0), (0, 1, 1)]
)
def test_an_update_saves_what_it_changes_in_a_doubtful_step(
    name: str, size: int, doubt: int, rate: float, always: int
) -> None:
    before, after, guard = saving(name, size, doubt, rate, always)
    assert guard[control_block.SAVED] == 1
    for key, value in before.items():
        assert after[f"saved_{key}"].tobytes() == value.tobytes()
        assert key != "p" or (after[key] != value).all()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_beyond_doubt_and_after_a_stop_nothing_is_saved(name: str) -> None:
    plain, _, _ = saving(name, 9, 1)
    for doubt, limit in ((0, np.inf), (1, -1.0)):
        before, after, guard = saving(name, 9, doubt, limit=limit)
        assert guard[control_block.SAVED] == 0
        for key, value in before.items():
            assert not after[f"saved_{key}"].any()
            if limit < 0 or key == "p":
                assert (after[key] == value).all() == (limit < 0)
            assert value.tobytes() == plain[key].tobytes()


@pytest.mark.parametrize("value", [1e14, 1e16, np.inf, np.nan])
def test_an_update_reports_whichever_element(value: float) -> None:
    """Of four at a time, or of the rest."""
    _, update = optim.SGD().kernels()
    for place in range(7):
        g = np.zeros((1, 7), np.float32)
        g[0, place] = value
        p, guard = np.ones_like(g), np.zeros(control_block.GUARD_LENGTH, np.int64)
        hyper = np.array([0.0, 1.0, np.inf, 1.0, *[-1.0] * (optim.SGD().hyper_size - 4)])
        call_cuda(
            CUDA_KERNELS[update], p=p, g=g, hyper=hyper.astype(np.float32), scale=None, guard=guard
        )
        assert (p[0] == 1).sum() == 6
        assert guard[control_block.LARGE] == (not abs(value) < 1e15)
        assert guard[control_block.BROKEN] == (not np.isfinite(value))


@pytest.mark.parametrize("broken", [0, 1])
def test_latch(broken: int) -> None:
    guard, after = np.zeros(control_block.GUARD_LENGTH, np.int64), block_of(STEP=1)
    guard[[control_block.LARGE, control_block.BROKEN, control_block.SAVED]] = 1, broken, 1
    call_cuda(CUDA_KERNELS["latch"], control=after, guard=guard)
    assert after[control_block.STOP] == (control_block.NOT_FINITE if broken else 0)
    assert guard[control_block.DOUBT] == 1 - broken


@pytest.mark.parametrize(("doubt", "stop", "rate"), [(0, 0, 1), (1, 0, 1), (0, 0, 1e9), (1, 2, 1)])
def test_safeguard(doubt: int, stop: int, rate: float) -> None:
    """Of updates in passes, which copy nothing themselves."""
    x, saved = np.arange(1, 301, dtype=np.float32), np.zeros(300, np.float32)
    slots = {f"slot{k}": x + k for k in (1, 2, 3)}
    copies = {f"saved{k}": np.zeros(300, np.float32) for k in (1, 2, 3)}
    guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
    guard[control_block.DOUBT] = doubt
    call_cuda(
        CUDA_KERNELS["safeguard"], control=block_of(STOP=stop),
        schedule=np.full((1, 1), float(rate)),
        guard=guard, x=x, saved=saved, **slots, **copies, always=0,
    )  # fmt: skip
    copied = bool(stop == 0 and (doubt or rate > 1e3))
    assert (saved == x).all() == copied == guard[control_block.SAVED]
    for k in (1, 2, 3):
        assert (copies[f"saved{k}"] == slots[f"slot{k}"]).all() == copied

"""Every optimiser's kernels on CUDA against those of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import optim
from fastnn.kernels import control_block
from fastnn.kernels.control_block import DOUBT, GUARD_LENGTH, LARGE
from fastnn.kernels.cuda.half import half_word
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.update.shared import HALVES, SAVING
from fastnn.runtime import _cuda
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import DTYPES
from tests.kernels.cuda.common import compute_both, compute_cuda
from tests.kernels.test_step import block_of

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(),
    "nesterov": lambda: optim.SGD(momentum=0.9, nesterov=True),
    "adagrad": lambda: optim.Adagrad(lr_decay=0.1),
    "rmsprop": lambda: optim.RMSprop(momentum=0.7, centered=True),
    "adadelta": lambda: optim.Adadelta(),
    "adam": lambda: optim.Adam(),
    "amsgrad": lambda: optim.Adam(amsgrad=True),
    "adamw": lambda: optim.AdamW(weight_decay=0.1),
    "adamax": lambda: optim.Adamax(),
    "nadam": lambda: optim.NAdam(),
    "radam": lambda: optim.RAdam(betas=(0.5, 0.8)),
    "lion": lambda: optim.Lion(),
    "rprop": lambda: optim.Rprop(),
    "irprop": lambda: optim.IRprop(),
    "quickprop": lambda: optim.Quickprop(),
    "delta-bar-delta": lambda: optim.DeltaBarDelta(),
    "asgd": lambda: optim.ASGD(t0=1),
    "schedule-free": lambda: optim.ScheduleFreeAdamW(warmup=3),
    "ema": lambda: optim.EMA(optim.Adam()),
    "swa": lambda: optim.SWA(optim.SGD(momentum=0.9)),
    "lookahead": lambda: optim.Lookahead(optim.Adam(), k=4),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_prepare_and_update(name: str, dtype: Any) -> None:
    optimizer = OPTIMIZERS[name]()
    prepare, update = optimizer.kernels()
    own = [p for p in CUDA_KERNELS[prepare].params if p not in CUDA_KERNELS[prepare].arrays]
    values = {"group": 1, "l2": 0.1, "decay": 0.2, "limit": 0.5, "sign": -1.0}
    values |= dict(zip(own[5:], optimizer.own_values(optimizer.options), strict=True))
    hyper = compute_both(
        prepare, dtype, {"hyper": (optimizer.hyper_size,)}, control=block_of(STEP=3, RUN_STEP=1),
        schedule=np.array([[1.0, 2.0], [0.5, 0.05]]), **values,
    )["hyper"]  # fmt: skip
    rng = np.random.default_rng(4)
    for shape in ((1, 1), (2, 3), (3, 8)):
        slots = {s: rng.random(shape) for s in optimizer.slots}
        p, g = rng.standard_normal((2, *shape))
        for scale in (np.zeros(0), [0.5]):
            guard = np.zeros(GUARD_LENGTH, np.int64)
            compute_both(
                update, dtype, {}, p=p, g=g, hyper=hyper, scale=scale, guard=guard, **slots
            )


@pytest.mark.skipif(not _cuda.simulated(), reason="a device's kernel is compiled")
def test_arrays_that_begin_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where four elements can't be loaded at a time, they are updated one by one, with the same
    bits."""
    rng = np.random.default_rng(5)
    optimizer = optim.SGD(momentum=0.5)
    kernel = CUDA_KERNELS[optimizer.kernels()[1]]
    p, g, slot = rng.standard_normal((3, 1, 11)).astype(np.float32)
    hyper = np.full(optimizer.hyper_size, 0.5, np.float32)
    found = []
    for aligned in (True, False):
        monkeypatch.setitem(kernel.function.__globals__, "can_load4", lambda x, a=aligned: a)
        mine = {"p": p.copy(), **{name: slot.copy() for name in optimizer.slots}}
        call_cuda(kernel, g=g, hyper=hyper, scale=None, guard=None, **mine)
        assert all((a != b).all() for a, b in zip(mine.values(), (p, slot), strict=True))
        found.append([a.tobytes() for a in mine.values()])
    assert found[0] == found[1]


@pytest.mark.parametrize("doubt", [0, 1])
@pytest.mark.parametrize("is_bf16", [0, 1])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam"])
def test_updates_that_save_and_write_16_bits(name: str, is_bf16: int, doubt: int) -> None:
    """The plain update's bits; in a doubtful step a copy of what was there before; and the numbers
    that products take. Sizes in fours, and with a rest."""
    optimizer = OPTIMIZERS[name]()
    update = optimizer.kernels()[1]
    rng = np.random.default_rng(4)
    for shape in ((3, 8), (3, 7)):
        slots = {s: rng.random(shape) for s in optimizer.slots}
        p, g = rng.standard_normal((2, *shape))
        guard = np.zeros(GUARD_LENGTH, np.int64)
        given = dict(g=g, hyper=np.full(optimizer.hyper_size, 0.25), scale=[0.5])
        plain = compute_cuda(update, np.float32, {}, p=p, guard=guard, **given, **slots)
        guard[control_block.DOUBT] = doubt
        saved = {f"saved_{s}": np.zeros(shape) for s in ("p", *optimizer.slots)}
        found = compute_cuda(
            f"{update}{SAVING}{HALVES}", np.float32, {}, p=p, guard=guard, **given, **slots,
            **saved, control=block_of(STEP=3), schedule=np.full((1, 1), 0.1), always=0,
            halves=np.zeros(shape, np.uint16), is_bf16=is_bf16,
        )  # fmt: skip
        for key in ("p", *optimizer.slots):
            assert found[key].tobytes() == plain[key].tobytes()
            before = np.float32(p if key == "p" else slots[key])
            assert (found[f"saved_{key}"] == doubt * before).all()
        assert (found["halves"] == half_word(plain["p"], is_bf16)).all()
        assert found["guard"][control_block.SAVED] == doubt


PASSES = {"lamb": optim.LAMB, "adafactor": optim.Adafactor, "muon": optim.Muon}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PASSES)
def test_passes(name: str, dtype: Any) -> None:
    """Optimisers that need sums over a parameter: each pass, and what is computed between."""
    optimizer = PASSES[name]()
    optimizer.kernels()
    rng = np.random.default_rng(6)
    hyper = 0.1 + 0.8 * rng.random(optimizer.hyper_size)
    for shape in ((1, 1), (2, 3), (3, 40)):
        for label, what in optimizer.passes.items():
            arrays = {a: rng.random(shape) + 0.1 for a in (*what.writes, *what.reads)}
            if what.factors:
                arrays |= {"row": rng.random(shape[0]) + 0.1, "col": rng.random(shape[1]) + 0.1}
            if what.own:
                arrays["own"] = rng.random(what.own)
            if "g" in arrays:
                arrays["scale"] = np.array([0.5])
            if "p" in what.writes:
                arrays["guard"] = np.zeros(GUARD_LENGTH, np.int64)
            out = dict.fromkeys(what.outs, shape)
            out |= {f"s{k}": (shape[0],) for k in range(what.sums)}
            compute_both(f"{name}_{label}", dtype, out, hyper=hyper, **arrays)
        for label, (_, count) in optimizer.combines.items():
            sums = {f"s{k}": rng.random(shape[0]) for k in range(count)}
            size = 2 if name == "muon" else 1
            compute_both(f"{name}_{label}", dtype, {"own": (size,)}, hyper=hyper, count=6.0, **sums)


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors(dtype: Any) -> None:
    rng = np.random.default_rng(7)
    for rows, columns in ((2, 2), (40, 3)):
        compute_both(
            "square_columns", dtype, {"y": (columns,)}, g=rng.normal(size=(rows, columns)),
            hyper=[0.3, 1.0, 0.5, -1.0], own=[0.1], scale=np.array([0.7]),
        )  # fmt: skip
        compute_both(
            "update_factors", dtype, {"scaled": (rows,), "roots": (columns,)},
            sums=rng.random(rows), cols=rng.random(columns), hyper=0.1 + rng.random(9),
            row=rng.random(rows), col=rng.random(columns),
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_of_infinite_gradients(dtype: Any) -> None:
    """They are infinite, as on the CPU: no parameter and no decay makes a NaN of them."""
    optim.Adafactor().kernels()
    g = np.random.default_rng(9).normal(size=(3, 40))
    g[1, 2], g[2, 39] = np.inf, -np.inf
    given = dict(g=g, hyper=[0.3, 1.0, np.inf, -1.0, *[0.0] * 6], own=[0.5], scale=[0.7])
    rows = compute_both("adafactor_squares", dtype, {"s0": (3,)}, **given)["s0"]
    columns = compute_both("square_columns", dtype, {"y": (40,)}, **given)["y"]
    assert [np.flatnonzero(np.isinf(sums)).tolist() for sums in (rows, columns)] == [
        [1, 2],
        [2, 39],
    ]
    assert not np.isnan([*rows, *columns]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [3, 4, 5])
def test_accumulation(step: int, dtype: Any) -> None:
    """Gradients of three steps: the first, one between, the last, which updates."""
    optimizer = optim.Adam(accumulate=3)
    prepare, _ = optimizer.kernels()
    options = dict(zip(optimizer.own, optimizer.own_values(optimizer.options), strict=True))
    hyper = compute_both(
        prepare, dtype, {"hyper": (optimizer.hyper_size,)}, control=block_of(STEP=step),
        schedule=np.array([[1.0]]), group=0, l2=0.0, decay=0.0, limit=0.5, sign=1.0, every=3,
        **options,
    )["hyper"]  # fmt: skip
    assert (hyper[2] < 0) == (step != 5)
    rng = np.random.default_rng(8)
    for shape in ((1, 1), (3, 7), (2, 40)):
        total, g = rng.standard_normal((2, *shape))
        guard = np.zeros(GUARD_LENGTH, np.int64)
        guard[DOUBT] = 1
        got = compute_both(
            "accumulate_gradient", dtype, {}, total=total, g=g, control=block_of(STEP=step),
            guard=guard, every=3,
        )  # fmt: skip
        want = g / 3 if step == 3 else total + g / 3
        np.testing.assert_allclose(got["total"], want, rtol=1e-5, atol=1e-6)
        assert got["guard"][LARGE] == (step != 5)  # the step that updates is doubtful still

"""Kernels that raise, print or leave their arrays: errors with the kernel's name and the item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import KernelError, OptionError, ProgramError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS, helper, kernel
from fastnn.testing.kernels import call

LIMIT = 100.0


@pytest.fixture(autouse=True)
def undo() -> Iterator[None]:
    """What a test declares is gone after it."""
    yield
    mine = (below_forward, asserted_forward, below_backward, prints, says)
    for name in [name for name, made in KERNELS.items() if made.function in mine]:
        del KERNELS[name]
    OPS.pop("below", None)


def below_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        if x[i, 0] > LIMIT:
            raise ValueError("too large")
        for j in range(x.shape[1]):
            y[i, j] = x[i, j]


#: in a piece of source because pytest rewrites assertions
ASSERTED = """
def asserted_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        assert x[i, 0] <= 100.0, "too large"
        for j in range(x.shape[1]):
            y[i, j] = x[i, j]
"""

_scope: dict[str, Any] = {}

exec(ASSERTED, _scope)

asserted_forward = _scope["asserted_forward"]


def below_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j]


def model(forward: Any = below_forward) -> nn.Module:
    below = fnn.define_op("below", kernel(forward), kernel(below_backward))

    class Model(nn.Module):
        def __init__(self) -> None:
            self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 1)

        def forward(self, x: Any) -> Any:
            return self.last(self.first(below(x)))

    return Model()


def data(bad: int, size: int = 999) -> tuple[np.ndarray, np.ndarray]:
    x = np.ones((size, 3), np.float32)
    x[bad, 0] = 500.0
    return x, x[:, :1] * 0.1


@pytest.mark.parametrize(
    ("forward", "cause"),
    [
        (below_forward, "ValueError: too large"),
        (asserted_forward, "AssertionError: too large"),
    ],
)
def test_exception_in_a_prediction(forward: Any, cause: str) -> None:
    net = model(forward)
    x, _ = data(7, 12)
    with pytest.raises(KernelError, match=rf"^kernel '{forward.__name__}', item 7: {cause}$"):
        net.predict(x)
    assert np.isfinite(net.predict(x * 0)).all()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_exception_in_training_stops_all_workers(workers: int) -> None:
    net = model()
    trainer = fnn.Trainer(net, "mse", optim.SGD(lr=1e-3), workers=workers, device="cpu")
    x, y = data(777)
    options: dict[str, Any] = dict(batch_size=200, shuffle=False, verbose=False)
    with pytest.raises(KernelError, match="item 177: ValueError: too large"):
        trainer.fit(x, y, **options)
    assert all(np.isfinite(p).all() for p in net.state_dict().values())
    good = np.ones((999, 3), np.float32)
    assert np.isfinite(trainer.fit(good, y, epochs=2, **options)["loss"]).all()
    with pytest.raises(KernelError, match="item"):
        trainer.evaluate(x, y, batch_size=200)


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_in_a_single_step(workers: int) -> None:
    net = model()
    step = fnn.compile(net, "mse", optim.SGD(lr=1e-3), workers=workers, device="cpu")
    x, y = data(5, 64)
    good = np.ones((64, 3), np.float32)
    first = step(good, y)
    for _ in range(3):
        with pytest.raises(KernelError, match="item 5: ValueError: too large"):
            step(x, y)
        assert step(good, y) < first


def test_exception_in_a_direct_call() -> None:
    made = kernel(below_forward)
    x, _ = data(3, 4)
    with pytest.raises(KernelError, match="'below_forward', item 3: ValueError: too large"):
        call(made, x=x, y=np.zeros_like(x))


# ---------------------------------------------------------------- print


def prints(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        print(x[i])  # noqa: T201
        y[i] = 0.0


def prints_inside(v: Any) -> Any:
    def inner(w: Any) -> Any:
        print(w)  # noqa: T201
        return w

    return inner(v)


say = print


def says(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        say(x[i])
        y[i] = 0.0


def test_print_is_refused() -> None:
    """Compiled code runs without Python's lock; what needs it would wait for good."""
    with pytest.raises(OptionError, match=r"'prints' calls print.*'out' array"):
        kernel(prints)
    with pytest.raises(OptionError, match=r"'prints_inside' calls print"):
        helper(prints_inside)
    x = np.ones(3, np.float32)
    with pytest.raises(ProgramError, match=r"'says'.*needs Python"):
        call(kernel(says), x=x, y=x.copy())


def test_annotations_that_cannot_be_read() -> None:
    def bare_forward(x, y):  # type: ignore[no-untyped-def]
        y[:] = x

    def odd_forward(x: "in row f[N]"):
        pass

    with pytest.raises(OptionError, match="parameter 'x': it has none; expected an annotation"):
        fnn.kernel(bare_forward)
    with pytest.raises(OptionError, match=r"parameter 'x': got 'in row f\[N\]'; expected"):
        fnn.kernel(odd_forward)

"""What the models of the golden programs don't come to: models, and operands of updates."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import nn, ops
from fastnn.data.ngram import NGram
from fastnn.kernels.declare import Array, CudaKernel, Kernel
from fastnn.kernels.update.shared import HALVES, MADE, SAVING, SHARED
from fastnn.optim import forms  # noqa: F401  (declares the kernels of updates)
from tests.golden.models import Calls, compiled, fit, ids, numbers
from tests.kernels.direct import control


def by_turns() -> None:
    """Recurrent nets on a GPU whose blocks have too little memory for their weights."""
    for net in (nn.RNN(3, 6), nn.LSTM(3, 6), nn.GRU(3, 6), nn.GRU(3, 6, reset="before")):
        x, n, y = numbers(4, 5, 3), np.array([5, 2, 3, 5]), numbers(4, 5, 6)
        compiled(Calls(lambda m, x, n: m.net(x, lengths=n)[0], net=net))((x, n), y)


def more() -> None:
    """What the models of the golden programs leave out."""

    def compared(m: Any, x: Any, i: Any) -> Any:
        a, b = m.a(x), m.b(x)
        masks = [a <= b, ops.equal(a, b), ops.not_equal(a, b), a > b, a >= b]
        y = sum(masks, ops.power(ops.square(a) + 1.0, b))
        return y + ops.equal(i, 1) + ops.sum(ops.flip(ops.transpose(b), 0)) * m.c.bias[0]

    layers = dict(a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(1, 1))
    compiled(Calls(compared, **layers))((numbers(8, 3), ids(8, 1)), numbers(8, 4))
    probabilities = np.abs(numbers(8, 4))
    fit(
        nn.Linear(3, 4), numbers(8, 3), probabilities, "cross_entropy",
        metrics=["categorical_accuracy"],
    ).evaluate(numbers(8, 3), probabilities)  # fmt: skip
    gates = Calls(
        lambda m, x: ops.glu(ops.gtu(ops.sin(m.a(x)) + ops.cos(m.a(x)))), a=nn.Linear(3, 16)
    )
    compiled(gates)(numbers(8, 3), numbers(8, 4))
    read = Calls(lambda m, x, n: (m.a(x), n), a=nn.Linear(3, 4))
    labels, lengths = 1 + ids(4, 2, below=3), np.array([5, 3, 4, 5])
    fit(read, (numbers(4, 5, 3), lengths), (labels, np.array([2, 1, 2, 0])), nn.CTCLoss())
    write = Calls(lambda m, x: ops.reshape(m.a(x), -1, 5, 3, 4), a=nn.Linear(3, 4))
    fit(write, numbers(4, 15, 3), labels, lambda x, y: ops.mean(ops.transducer_loss(x, y)))
    tagger = Calls(lambda m, x: m.a(x), a=nn.Linear(3, 4), crf=nn.CRF(4))
    fit(tagger, numbers(4, 5, 3), ids(4, 5, below=3), nn.CRFLoss(tagger.crf))
    tagger.crf.predict(numbers(4, 5, 4), lengths)
    model = NGram.train([["a", "b"], ["b"]], 2)
    for decoder in (
        nn.CTCDecoder(["", "a", "b", " "], 0),
        nn.CTCDecoder(["", "a", "b", " "], 3, words=["a", "b", "ab"], model=model, best=2),
    ):
        decoder.predict(numbers(4, 5, 4), lengths)
    align = Calls(lambda m, x, y, n: ops.ctc_align(x, y, n))
    align.predict(numbers(4, 5, 4), labels[:, :1], lengths)


#: the kernels of updates element by element, whose optimisers need not all be met in models
UPDATES = [
    name for name in MADE if MADE.get(name.replace("_prepare", "_update"), ("",))[0] == "update"
]


def update_operands(kernel: Kernel | CudaKernel) -> dict[str, Any]:
    """Operands of an update or of what prepares it, by the kinds of its parameters."""
    update = kernel.name.removesuffix(HALVES).removesuffix(SAVING).replace("_prepare", "_update")
    size = SHARED + MADE[update][1][3]  # of what is prepared
    given: dict[str, Any] = {"control": control(0), "scale": None, "guard": np.zeros(8, np.int64)}
    for name, parameter in kernel.params.items():
        if name in given:
            continue
        if not isinstance(parameter, Array):
            given[name] = 0 if parameter.kind == "int" else 0.5
        elif parameter.dtype == "r":
            given[name] = np.ones((1, 1))
        elif parameter.dtype == "h":
            given[name] = np.zeros((2, 5), np.uint16)
        else:
            given[name] = np.abs(numbers(*((size,) if parameter.dims == ("H",) else (2, 5))))
    return {name: given[name] for name in kernel.params}

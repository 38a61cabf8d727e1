"""Cases of recurrent nets and loops."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, ops
from tests.golden.cases import LIMITS, Calls, case, fit, ids, numbers


def sequences(model: nn.Module, **options: Any) -> fnn.Trainer:
    """Train on padded sequences of the model's outputs."""
    layer = Calls(lambda m, x, lengths: m.net(x, lengths=lengths)[0], net=model)
    x, lengths = numbers(4, 5, 3), np.array([5, 2, 3, 5])
    width = fnn.Trainer(layer, "mse").model.predict(x, lengths).shape[-1]
    return fit(layer, (x, lengths), numbers(4, 5, width), batch=4, **options)


@case
def rnn() -> None:
    sequences(nn.RNN(3, 6))


@case
def rnn_relu_without_bias() -> None:
    sequences(nn.RNN(3, 6, nonlinearity="relu", bias=False, identity_init=1.0))


@case
def lstm() -> None:
    sequences(nn.LSTM(3, 6))


@case
def lstm_evaluated() -> None:
    layer = Calls(lambda m, x: m.head(m.net(x)[0][:, -1]), net=nn.LSTM(3, 6), head=nn.Linear(6, 2))
    trainer = fit(layer, numbers(8, 4, 3), ids(8, below=2), "cross_entropy", metrics=["accuracy"])
    trainer.evaluate(numbers(8, 4, 3), ids(8, below=2))
    layer.predict(numbers(8, 4, 3))


@case
def lstm_peepholes() -> None:
    sequences(nn.LSTM(3, 6, peepholes=True, forget_bias=1.0))


@case
def lstm_projected() -> None:
    sequences(nn.LSTM(3, 6, proj_size=4))


@case
def lstm_deep() -> None:
    """Two layers in two directions, dropout between them, steps first."""
    net = nn.LSTM(3, 6, 2, bidirectional=True, dropout=0.2, batch_first=False)
    fit(Calls(lambda m, x: ops.swap_time(m.net(ops.swap_time(x))[0]), net=net),
        numbers(4, 5, 3), numbers(4, 5, 12), batch=4)  # fmt: skip


@case
def lstm_carried() -> None:
    """Windows of a long sequence: states carried on, gradients cut."""
    net = nn.LSTM(3, 6, bptt=2, stateful=4)
    layer = Calls(lambda m, x: m.net(x)[0], net=net)
    fit(layer, numbers(4, 5, 3), numbers(4, 5, 6), batch=4)
    layer.predict(numbers(4, 5, 3), batch_size=4)


@case
def lstm_by_turns() -> None:
    """On CUDA, recurrent weights that don't fit into a block's memory."""
    sequences(nn.LSTM(3, 100))


@case
def lstm_double() -> None:
    sequences(nn.LSTM(3, 6), dtype="float64")


@case
def gru() -> None:
    sequences(nn.GRU(3, 6))


@case
def gru_reset_before() -> None:
    sequences(nn.GRU(3, 6, reset="before", bidirectional=True, merge="sum"))


@case
def gru_by_turns() -> None:
    sequences(nn.GRU(3, 100, reset="before"))


LIMITS["gru_by_turns"] = LIMITS["lstm_by_turns"]


@case
def scrn() -> None:
    sequences(nn.SCRN(3, 6, context_size=4))


@case
def cells() -> None:
    def forward(m: Any, x: Any) -> Any:
        def step(x_t: Any, state: Any) -> Any:
            h, a, c, g = state
            h = m.rnn(x_t, h)
            a, c = m.lstm(h, (a, c))
            g = m.gru(a, g)
            return g, (h, a, c, g)

        zero = ops.zeros_state(x, 4)
        return ops.loop(step, x, (zero, zero, zero, zero))[0]

    parts = dict(rnn=nn.RNNCell(3, 4), lstm=nn.LSTMCell(4, 4), gru=nn.GRUCell(4, 4))
    fit(Calls(forward, **parts), numbers(4, 3, 3), numbers(4, 3, 4), batch=4)


# ---------------------------------------------------------------- loops


def elman(m: Any, x: Any) -> Any:
    def step(x_t: Any, h: Any) -> Any:
        h = ops.tanh(m.a(x_t) + m.b(h))
        return ops.dropout(h, 0.2), h

    return ops.loop(step, x, ops.zeros_state(x, 6))[0]


@case
def loop() -> None:
    layer = Calls(elman, a=nn.Linear(3, 6), b=nn.Linear(6, 6))
    fit(layer, numbers(4, 5, 3), numbers(4, 5, 6), batch=4).evaluate(
        numbers(4, 5, 3), numbers(4, 5, 6)
    )
    layer.predict(numbers(4, 9, 3))


@case
def loop_with_lengths() -> None:
    """Two states, one of them an output, steps masked by row."""

    def forward(m: Any, x: Any, lengths: Any) -> Any:
        def step(x_t: Any, state: Any) -> Any:
            h, c = state
            z = ops.sigmoid(m.gate(ops.concatenate(x_t, h)))
            k = ops.tanh(m.norm(m.new(x_t) + z * h))
            return h + k, (k, c + z)

        zero = ops.zeros_state(x, 6)
        y, (_, c) = ops.loop(step, x, (zero, zero), lengths=lengths)
        return y, c

    parts = dict(gate=nn.Linear(9, 6), new=nn.Linear(3, 6), norm=nn.LayerNorm(6))
    x = numbers(4, 3, 3), np.array([3, 1, 2, 3])
    y = numbers(4, 3, 6), numbers(4, 6)
    fit(Calls(forward, **parts), x, y, ["mse", "mse"], batch=4)


@case
def loop_with_memory() -> None:
    """A step that looks at something outside that runs over the batch."""

    def forward(m: Any, x: Any, memory: Any) -> Any:
        key = m.key(memory)

        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(m.mix(ops.concatenate(x_t, h)) + key)
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 6))[0]

    parts = dict(key=nn.Linear(3, 6), mix=nn.Linear(9, 6))
    fit(Calls(forward, **parts), (numbers(4, 3, 3), numbers(4, 3)), numbers(4, 3, 6), batch=4)


@case
def loop_until() -> None:
    """Ends where the data say so; then a prediction, each block of which ends alone."""

    def forward(m: Any, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(m.mix(ops.concatenate(x_t, h)))
            return h, h

        ended = lambda y, _: ops.sum(y, axis=1) > 1.0  # noqa: E731
        return ops.loop(step, x, ops.zeros_state(x, 6), until=ended)[0]

    model = Calls(forward, mix=nn.Linear(9, 6))
    fit(model, numbers(4, 3, 3), numbers(4, 3, 6), batch=4)
    model.predict(numbers(4, 3, 3))

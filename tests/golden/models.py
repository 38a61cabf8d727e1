"""The models whose programs are kept. A case is a function that trains, evaluates or predicts; what
is bound meanwhile is its programs. Sizes are small: nothing is computed, only planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import metrics, nn, ops, optim, pretrain
from fastnn.kernels.cuda.device import cuda
from fastnn.runtime import devices
from tests.train.models import MODELS, OPTIMIZERS

Case = Callable[[], None]
#: by name, in order
CASES: dict[str, Case] = {}
#: options of `null_device` beyond the kind, by case
LIMITS: dict[str, dict[str, Any]] = {"lstm_by_turns": {"block_limits": (1, 50_000)}}


def case(make: Case) -> Case:
    CASES[make.__name__] = make
    return make


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ids(*shape: int, below: int = 4) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape) % below


def fit(
    model: nn.Module, x: Any, y: Any, loss: Any = "mse", optimizer: Any = None, batch: int = 8,
    sample_weight: Any = None, **options: Any,
) -> fnn.Trainer:  # fmt: skip
    trainer = fnn.Trainer(model, loss, optimizer or optim.SGD(lr=0.1), **options)
    fit = dict(epochs=1, batch_size=batch, verbose=False, sample_weight=sample_weight)
    trainer.fit(x, y, **fit)
    return trainer


def compiled(model: nn.Module, loss: Any = "mse", **options: Any) -> Any:
    return fnn.compile(model, loss, optim.SGD(lr=0.1), **options)


class Calls(nn.Module):
    """A layer that is one function."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


# ---------------------------------------------------------------- layers


@case
def mlp() -> None:
    """All that a trainer does: whole batches and the rest, evaluation, predictions, metrics."""
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4))
    trainer = fit(
        model, numbers(21, 6), ids(21), "cross_entropy", "adam",
        metrics=["accuracy", "top_2_accuracy"],
    )  # fmt: skip
    trainer.evaluate(numbers(21, 6), ids(21), batch_size=8)
    model.predict(numbers(21, 6), batch_size=8)


@case
def convolutional() -> None:
    """Convolutions of images and sequences, in groups, depthwise and transposed."""
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), nn.Tanh(), nn.Flatten(),
    )  # fmt: skip
    compiled(model)(numbers(9, 2, 7, 6), numbers(9, 32))
    sequences = Calls(
        lambda m, x, n: m.conv(x, n)[0], conv=nn.Conv1d(3, 4, 3, padding="causal", channels="last")
    )
    compiled(sequences)((numbers(3, 5, 3), np.array([5, 2, 3])), numbers(3, 5, 4))


@case
def pooled() -> None:
    """Maxima and averages of windows, and the gradient of such a gradient."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.MaxPool2d(3, 2, 1), nn.Tanh(), nn.AvgPool2d(2, 1), nn.Flatten()
    )
    compiled(model)(numbers(9, 1, 7, 6), numbers(9, 12))

    def slope(m: Any, x: Any) -> Any:
        found = ops.gradient(ops.sum(ops.square(ops.max_pool1d(m.conv(x), 2))), x)
        return ops.global_avg_pool(ops.upsample(ops.square(found), scale_factor=2))

    compiled(Calls(slope, conv=nn.Conv1d(2, 3, 2)))(numbers(9, 2, 5), numbers(9, 2))


@case
def batches() -> None:
    """Batches that the host writes, of two lengths."""
    given = [(numbers(4, 5, 3), numbers(4, 5, 2)), (numbers(4, 7, 3), numbers(4, 7, 2))]
    trainer = fnn.Trainer(nn.Linear(3, 2), "mse", optim.SGD(lr=0.1))
    trainer.fit(given, epochs=1, verbose=False)
    trainer.evaluate(given)


@case
def boltzmann_machine() -> None:
    """Contrastive divergence from the data, and with chains that go on; evaluation; samples."""
    x = np.abs(numbers(8, 6)) % 1
    for options in ({}, {"chains": 4, "sparsity": 0.1}):
        trainer = pretrain.RBM(6, 20).trainer(**options)
        trainer.fit(x, epochs=1, batch_size=8, verbose=False)
    trainer.evaluate(x)
    pretrain.RBM(6, 20).sample(3, 1)


@case
def normalised() -> None:
    layers = [nn.Standardize(6), nn.MinMaxScale(6, clip=True), nn.RobustScale(6), nn.Whiten(6)]
    for layer in layers:
        layer.adapt(numbers(20, 6))
    fit(nn.Sequential(*layers, nn.UnitNorm(), nn.Linear(6, 3)), numbers(8, 6), numbers(8, 3))


@case
def activations() -> None:
    fit(
        nn.Sequential(
            nn.Linear(6, 6), nn.ReLU(), nn.LeakyReLU(0.1), nn.PReLU(6), nn.ELU(), nn.SELU(),
            nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(beta=2.0),
            nn.Softmax(), nn.LogSoftmax(), nn.Maxout(2), nn.PReLU(),
        ), numbers(8, 6), numbers(8, 3),
    )  # fmt: skip


@case
def norms() -> None:
    model = nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm(12), nn.Dropout(0.3), nn.Linear(12, 12), nn.LayerNorm(12),
        nn.Dropout(0.2, classic=True), nn.RMSNorm(12), nn.Linear(12, 4),
        nn.BatchNorm(4, affine=False), nn.LayerNorm(4, affine=False),
    )  # fmt: skip
    fit(model, numbers(8, 6), numbers(8, 4)).evaluate(numbers(8, 6), numbers(8, 4))


@case
def tagger() -> None:
    """Ids, a residual block, two paths joined."""
    make, data = MODELS["tagger"]
    fit(make(), *data(8), "cross_entropy")


@case
def shapes() -> None:
    fit(
        Calls(
            lambda m, x: m.join(m.add(m.a(m.flat(x)), m.b(m.flat(x))), m.times(m.a(x[:, 0]), 2.0)),
            flat=nn.Flatten(), a=nn.Sequential(nn.Reshape(-1), nn.Linear(6, 4, bias=False)),
            b=nn.Sequential(nn.Identity(), nn.Linear(6, 4)), add=nn.Add(), times=nn.Multiply(),
            join=nn.Concatenate(),
        ), numbers(8, 1, 6), numbers(8, 8),
    )  # fmt: skip


@case
def tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
            self.head.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            return self.head(self.embed(x))

    fit(Tied(), ids(8, 3, below=9), ids(8, 3, below=9), "cross_entropy", "adam")


@case
def wide() -> None:
    """Products of sizes that choose other kernels: packed, blocked, split."""
    model = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    fit(model, numbers(128, 64), numbers(128, 1024), batch=128)
    model.predict(numbers(2, 64))


@case
def lower_precision() -> None:
    """TF32 on tensor cores, factors rounded to bfloat16 on the CPU."""
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512))
    precision = "bf16" if devices.on_host(devices.choose("auto")) else "medium"
    fit(model, numbers(128, 64), numbers(128, 512), batch=128, precision=precision)


@case
def double() -> None:
    model = nn.Sequential(nn.Linear(6, 20), nn.GELU(), nn.LayerNorm(20), nn.Linear(20, 4))
    fit(model, numbers(8, 6), ids(8), "cross_entropy", "adam", dtype="float64")


# ---------------------------------------------------------------- recurrent


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


# ---------------------------------------------------------------- losses, metrics, optimisers


@case
def losses() -> None:
    classes = np.array([1.0, 2.0, 0.5, 1.0])
    for loss in (
        nn.CrossEntropyLoss(classes, ignore_index=3), nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"), nn.NLLLoss(),
    ):  # fmt: skip
        fit(nn.Linear(3, 4), numbers(8, 3), ids(8), loss)
    for loss in (
        nn.CrossEntropyLoss(classes), nn.MSELoss(), nn.L1Loss("sum"), nn.HuberLoss(0.5),
        nn.SmoothL1Loss(0.5), nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(classes),
        nn.KLDivLoss(), nn.KLDivLoss("sum", log_target=True),
    ):  # fmt: skip
        fit(nn.Linear(3, 4), numbers(8, 3), numbers(8, 4), loss)


@case
def weighted() -> None:
    """Two outputs with a loss each, factors, sample weights."""
    layer = Calls(lambda m, x: {"a": m.a(x), "b": m.b(x)}, a=nn.Linear(3, 4), b=nn.Linear(3, 2))
    y = {"a": ids(8), "b": numbers(8, 2)}
    fit(
        layer, numbers(8, 3), y, {"a": "cross_entropy", "b": "huber"}, loss_weights={"b": 0.5},
        metrics={"a": ["accuracy"]}, sample_weight=np.ones(8),
    ).evaluate(numbers(8, 3), y)  # fmt: skip


@case
def own_losses() -> None:
    """A mean, a sum, and one that does not add up over batches."""
    for loss in (
        lambda out, target: ops.mean((out - target) ** 2),
        lambda out, target: ops.sum(ops.absolute(out - target)),
        lambda out, target: ops.sqrt(ops.mean((out - target) ** 2)),
    ):
        fit(nn.Linear(3, 2), numbers(8, 3), numbers(8, 2), loss).evaluate(
            numbers(8, 3), numbers(8, 2), batch_size=4
        )


@case
def reported() -> None:
    """Metrics."""
    fit(
        nn.Linear(3, 4), numbers(8, 3), numbers(8, 4), "bce_with_logits",
        metrics=["accuracy", metrics.binary_accuracy(0.2), "mse", "mae",
                 lambda out, target: ops.mean(out * target, axis=-1)],
    )  # fmt: skip


@case
def optimizers() -> None:
    """Every optimiser in each of its forms."""
    for make in (
        *OPTIMIZERS.values(),
        lambda: optim.Adam(amsgrad=True),
        lambda: optim.Adam(weight_decay=1e4),  # every step doubtful
        lambda: optim.SGD(lr=0.1, momentum=0.9, maximize=True, decoupled_weight_decay=0.1),
    ):
        fit(nn.Linear(3, 2), numbers(8, 3), numbers(8, 2), optimizer=make())


@case
def clipping() -> None:
    for options in (
        {"clip_value": 0.01}, {"clip_norm": 0.05}, {"clip_global_norm": 0.05, "clip_value": 0.01},
        {"groups": {"*.bias": {"weight_decay": 0.3, "lr": 0.2}, "0.*": {"clip_norm": 0.1}}},
    ):  # fmt: skip
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        fit(model, numbers(8, 3), numbers(8, 2), optimizer=optim.Adam(lr=0.1, **options))


@case
def unguarded() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    fit(model, numbers(8, 3), numbers(8, 2), stop_on_nonfinite=False)


@case
def gradients_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    fit(model, numbers(8, 3), numbers(8, 2), keep_gradients=True)


@case
def frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model.freeze("0.*")
    fit(model, numbers(8, 3), numbers(8, 2))


@case
def autoencoder() -> None:
    model = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))
    fit(model, (numbers(8, 6) > 0).astype(np.uint8), None, "bce_with_logits")


# ---------------------------------------------------------------- steps


@case
def step() -> None:
    """A step, its loss, its gradients; ids are checked by a program of their own."""
    step = compiled(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4)), "cross_entropy")
    step(ids(8), ids(8))
    step(ids(8), ids(8), np.ones(8))
    step.evaluate(ids(8), ids(8))
    step.gradients(ids(8), ids(8))


@case
def players() -> None:
    """Two steps that train parts of one model."""

    class Game(nn.Module):
        def __init__(self) -> None:
            self.makes = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
            self.judges = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(), nn.Linear(8, 1))

        def forward(self, noise: Any, real: Any) -> Any:
            return self.judges(self.makes(noise)), self.judges(real)

    model, data = Game(), (numbers(8, 2), numbers(8, 3))
    first = compiled(model, lambda out, _: ops.mean(ops.softplus(-out[0])), parameters="makes.*")
    second = compiled(
        model, lambda out, _: ops.mean(ops.softplus(out[0]) + ops.softplus(-out[1])),
        parameters="judges.*", keep_gradients=True,
    )  # fmt: skip
    first(data)
    second(data)


# ---------------------------------------------------------------- ops


@case
def arithmetic() -> None:
    def forward(m: Any, x: Any) -> Any:
        a, b = m.a(x), m.b(x)
        c = ops.maximum(a, b) + ops.minimum(a, -b) - a * b / (ops.square(b) + 1.0)
        c = ops.where(a < b, c, ops.clip(b, -0.5, 0.5)) + ops.power(ops.absolute(a) + 1.0, 1.5)
        c = c + ops.exp(a) * ops.erf(b) + ops.log(ops.square(a) + 1.0) + ops.sqrt(b**2 + 1.0)
        return c + x[:, :1] + np.arange(4.0) + ops.detach(a)

    fit(Calls(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 4)), numbers(8, 3), numbers(8, 4))


@case
def reductions() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = ops.reshape(m.a(x), (-1, 2, 3))
        parts = [
            ops.sum(y, axis=1), ops.mean(y, axis=-1), ops.max(y, axis=2), ops.min(y, axis=1),
            ops.prod(y, axis=2), ops.logsumexp(y, axis=1), ops.cumsum(y, axis=1)[:, 0],
            ops.softmax(y, axis=1)[:, 1], ops.log_softmax(y)[:, 0],
        ]  # fmt: skip
        return ops.concatenate(*parts)

    fit(Calls(forward, a=nn.Linear(3, 6)), numbers(8, 3), numbers(8, 24))


@case
def views() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = ops.reshape(m.a(x), (-1, 3, 4))
        parts = [
            ops.flip(y, 1)[:, 0], ops.permute(y, (0, 2, 1))[:, 1], y[:, ::2, 1],
            ops.pad(y, ((0, 0), (0, 1), (0, 0)))[:, 2], ops.squeeze(ops.unsqueeze(y[:, 0], 1), 1),
            ops.take(y, np.array([2, 0]), axis=1)[:, 1], ops.expand(y[:, :1, :1], (8, 1, 2))[:, 0],
            ops.flatten(ops.stack([y[:, 0], y[:, 1]], axis=1)), *ops.split(y[:, 0], 2, axis=1),
        ]  # fmt: skip
        return ops.concatenate(*parts)

    out = fnn.Trainer(Calls(forward, a=nn.Linear(3, 12)), "mse").model
    fit(out, numbers(8, 3), numbers(8, out.predict(numbers(8, 3)).shape[-1]))


@case
def attention() -> None:
    """Stacks of products."""

    def forward(m: Any, x: Any) -> Any:
        weights = ops.softmax(ops.matmul(m.q(x), ops.transpose(m.k(x))))
        return ops.matmul(weights, m.v(x))

    parts = dict(q=nn.Linear(3, 4), k=nn.Linear(3, 4), v=nn.Linear(3, 4))
    fit(Calls(forward, **parts), numbers(8, 5, 3), numbers(8, 5, 4))


@case
def users_op() -> None:
    @fnn.kernel
    def golden_forward(
        x: "in rows f[N,C]", y: "out rows f[N,C]", beta: "real", lo: "begin", hi: "end"
    ):
        for i in range(lo, hi):
            for j in range(x.shape[1]):
                y[i, j] = x[i, j] * beta

    @fnn.kernel
    def golden_backward(
        dy: "in rows f[N,C]", dx: "out rows f[N,C]", beta: "real", lo: "begin", hi: "end"
    ):
        for i in range(lo, hi):
            for j in range(dy.shape[1]):
                dx[i, j] = dy[i, j] * beta

    @fnn.cuda_kernel(launch=lambda s: (s["N"], 32), name="golden_forward")
    def forward_twin(x: "in rows f[N,C]", y: "out rows f[N,C]", beta: "real"):
        for j in range(cuda.threadIdx.x, x.shape[1], 32):
            y[cuda.blockIdx.x, j] = x[cuda.blockIdx.x, j] * beta

    @fnn.cuda_kernel(launch=lambda s: (s["N"], 32), name="golden_backward")
    def backward_twin(dy: "in rows f[N,C]", dx: "out rows f[N,C]", beta: "real"):
        for j in range(cuda.threadIdx.x, dy.shape[1], 32):
            dx[cuda.blockIdx.x, j] = dy[cuda.blockIdx.x, j] * beta

    golden = fnn.define_op(
        "golden", golden_forward, golden_backward, defaults={"beta": 2.0},
        cuda=[forward_twin, backward_twin],
    )  # fmt: skip
    layer = Calls(lambda m, x: golden(m.a(x), beta=0.5), a=nn.Linear(3, 4))
    fit(layer, numbers(8, 3), numbers(8, 4))

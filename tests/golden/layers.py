"""Cases of layers without a time loop, and of ops."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, ops, optim, pretrain
from fastnn.kernels.cuda.device import cuda
from fastnn.runtime import devices
from tests.golden.cases import Calls, case, compiled, fit, ids, numbers
from tests.train.models import MODELS


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

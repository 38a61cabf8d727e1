"""Losses of whole sequences: connectionist temporal classification, conditional random fields."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks.kernels import aligned, caller
from benchmarks.sequences import xla
from benchmarks.sequences.sides import Sides, state_of
from fastnn import nn, optim
from fastnn.kernels.ctc.shared import columns_for, room_for
from fastnn.kernels.declare import kernel_of


def ctc(batch: int, steps: int, labels: int, classes: int, threads: int) -> Sides:
    """The loss and its gradient to the logits, all frames and labels used."""
    import jax
    import optax  # type: ignore[import-not-found, unused-ignore]
    import torch

    random = np.random.default_rng(0)
    x = aligned(random.standard_normal((batch, steps, classes)).astype(np.float32))
    target = random.integers(1, classes, (batch, labels))
    lengths, counts = np.full(batch, steps), np.full(batch, labels)
    columns = columns_for(labels)
    width, size = room_for(columns)
    arrays = {
        name: aligned(np.zeros(shape, np.float32))
        for name, shape in (
            ("loss", (batch,)), ("norm", (batch, steps, 2)), ("share", (batch, steps, columns)),
            ("room", (batch, steps, width)), ("work", (batch, size)), ("dx", x.shape),
        )
    }  # fmt: skip
    given = {"x": x, "target": target, "lengths": lengths, "target_lengths": counts}
    same: dict[str, Any] = {**given, "blank": 0, "mean": 0}
    forward = caller(
        kernel_of("ctc_forward"), threads, **same, zero_infinity=0,
        **{k: arrays[k] for k in ("loss", "norm", "share", "room", "work")},
    )  # fmt: skip
    backward = caller(
        kernel_of("ctc_backward"), threads, **same, dloss=np.ones(batch, np.float32),
        **{k: arrays[k] for k in ("norm", "share", "dx")},
    )  # fmt: skip

    def ours() -> Any:
        forward(1)
        backward(1)
        return arrays["loss"].sum(dtype=np.float64), np.abs(arrays["dx"][0]).sum(dtype=np.float64)

    tx = torch.from_numpy(x).requires_grad_()
    tt, tl, tc = (torch.from_numpy(a) for a in (target, lengths, counts))

    def theirs() -> Any:
        tx.grad = None
        logs = torch.log_softmax(tx, 2).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(logs, tt, tl, tc, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        assert tx.grad is not None
        return float(loss.detach()), float(tx.grad[0].abs().sum())

    zeros = np.zeros((batch, steps), np.float32), np.zeros((batch, labels), np.float32)
    with_gradient = jax.jit(
        jax.value_and_grad(lambda x: optax.ctc_loss(x, zeros[0], target, zeros[1]).sum())
    )

    def optaxs() -> Any:
        loss, gradient = jax.block_until_ready(with_gradient(x))
        return float(loss), float(np.abs(np.asarray(gradient[0])).sum())

    return Sides({"fastnn": ours, "PyTorch": theirs, "JAX": optaxs}, close=2e-3)


class Tagger(nn.Module):
    """A linear layer whose outputs are the scores of tags."""

    def __init__(self, features: int, tags: int):
        self.scores, self.crf = nn.Linear(features, tags), nn.CRF(tags)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.scores(x), lengths


def crf(threads: int, precision: str) -> Sides:
    """A step with Adam of 9 features, 9 tags, 32 sequences of 10 to 40 steps."""
    import torch

    tags, batch, steps = 9, 32, 40
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, steps, tags)).astype(np.float32)
    lengths = random.integers(10, steps + 1, batch)
    lengths[0] = steps
    valid = np.arange(steps) < lengths[:, None]
    target = np.where(valid, random.integers(0, tags, (batch, steps)), -1)
    model = Tagger(tags, tags)
    step = fnn.compile(model, nn.CRFLoss(model.crf), optim.Adam(lr=1e-3), workers=threads,
                       precision=precision)  # fmt: skip
    model.store()
    s = state_of(model)
    adam = torch.optim.Adam(s.values(), lr=1e-3)
    tx, tt, mask = torch.from_numpy(x), torch.from_numpy(np.maximum(target, 0)), valid
    tm, ends = torch.from_numpy(mask), torch.from_numpy(lengths - 1)
    rows = torch.arange(batch)
    pairs, first, last = (f"crf.{n}transitions" for n in ("", "start_", "end_"))

    def theirs() -> float:
        scores = tx @ s["scores.weight"].T + s["scores.bias"]
        own = scores.gather(2, tt[:, :, None])[:, :, 0].mul(tm).sum(1)
        own = own + s[first][tt[:, 0]] + s[last][tt[rows, ends]]
        own = own + s[pairs][tt[:, :-1], tt[:, 1:]].mul(tm[:, 1:]).sum(1)
        a = s[first] + scores[:, 0]
        for t in range(1, steps):
            following = torch.logsumexp(a[:, :, None] + s[pairs], 1) + scores[:, t]
            a = torch.where(tm[:, t, None], following, a)
        loss = (torch.logsumexp(a + s[last], 1) - own).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return float(loss.detach())

    jax = xla.crf(model.state_dict(), x, target, lengths)
    return Sides(
        {"fastnn": lambda: float(step((x, lengths), target)), "PyTorch": theirs, "JAX": jax}
    )

"""Trainings with products of 16-bit factors, on the device or in the simulator, beside the CPU's.

The CPU rounds the same factors, but keeps activations' slopes and biases' gradients from numbers
that are not rounded; so losses agree to TOLERANCE, that of bfloat16's numbers over a few steps.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import optim
from fastnn.plan.halves import _Halves
from tests.cuda.test_training import Sequences, mlp, sentences, vectors

TOLERANCE = {"bf16": 4e-3, "fp16": 5e-4}
CASES = {"mlp": (mlp, vectors), "sequences": (Sequences, sentences)}


def losses(name: str, device: str, **options) -> list[float]:
    make, data = CASES[name]
    x, y = data(8)
    trainer = fnn.Trainer(make(), "cross_entropy", optim.Adam(lr=0.02), device=device, **options)
    history = trainer.fit(x, y, epochs=3, batch_size=8, verbose=False)
    return list(history["loss"])


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_losses(name: str, precision: str) -> None:
    device = losses(name, "cuda", precision=precision)
    highest, lower = losses(name, "cpu"), losses(name, "cpu", precision=precision)
    np.testing.assert_allclose(device, lower, rtol=TOLERANCE[precision])
    np.testing.assert_allclose(device, highest, rtol=2 * TOLERANCE[precision])
    assert device != highest
    assert device[-1] < device[0]


def test_a_step_whose_gradients_overflow_is_left_out() -> None:
    x, y = vectors(4)
    step = fnn.compile(
        mlp(), lambda out, t: 64.0 * out.sum(), optim.SGD(lr=0.01), device="cuda", precision="fp16"
    )
    before = np.array(step.model[2].weight)
    seen = []
    for _ in range(8):
        step(x, y)
        seen.append((step.loss_scale, (np.array(step.model[2].weight) != before).any()))
    assert seen[0] == (2.0**15, False)
    first = next(k for k, (_, moved) in enumerate(seen) if moved)
    assert [scale for scale, _ in seen[:first]] == [2.0 ** (15 - k) for k in range(first)]
    assert all(moved and scale == seen[first - 1][0] for scale, moved in seen[first:])


def test_predictions() -> None:
    model, (x, _) = mlp().to("cuda"), vectors(6)
    whole = model.predict(x, precision="bf16")
    np.testing.assert_allclose(whole, model.predict(x), atol=0.03)
    assert (whole != model.predict(x)).any()


def trained_with_changes() -> list[np.ndarray]:
    """A training in which weights change by other hands than the optimiser's: one that is frozen in
    the middle of a step, one that is trained between two runs; batches of two sizes."""
    model, (x, y) = mlp(), vectors(6)
    model.freeze("0.weight")

    def hook(gradients) -> None:
        model[0].weight[...] *= 0.75

    options = dict(device="cuda", precision="bf16")
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(lr=0.02), **options)
    hooked = fnn.Trainer(
        model, "cross_entropy", optim.SGD(lr=0.1, momentum=0.5), on_gradients=hook, **options
    )
    for _ in range(2):
        trainer.fit(x, y, epochs=1, batch_size=3, verbose=False)
        model[2].weight[...] *= 1.25
    hooked.fit(x, y, epochs=1, batch_size=3, verbose=False)
    return [np.array(p) for p in model.parameters()]


def test_weights_that_updates_write_in_16_bits_are_those_that_a_step_would_copy(monkeypatch):
    found = trained_with_changes()
    monkeypatch.setattr(_Halves, "_kept_by_updates", lambda self: False)
    for one, other in zip(found, trained_with_changes(), strict=True):
        np.testing.assert_array_equal(one, other)

"""A net with a memory: against float64 NumPy and differences; `tests/peers` has PyTorch."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.testing import gradcheck

SETTINGS = [
    dict(controller="lstm"),
    dict(controller="feedforward", read_heads=2, write_heads=2, shift=2),
    dict(controller="lstm", read_heads=1, write_heads=2, shift=0),
]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive(model, x, lengths=None):
    """One sequence after the other, head by head, in float64."""
    s = {name: p.astype(np.float64) for name, p in model.state_dict().items()}
    N, W, R = model.slots, model.width, model.read_heads
    count, S = R + model.write_heads, model.shift
    size = W + 3 + 2 * S + 1
    outputs, weightings = [], []
    for b, sequence in enumerate(x.astype(np.float64)):
        memory, read = np.full((N, W), 1e-6), np.zeros((R, W))
        w = np.zeros((count, N))
        w[:, 0] = 1
        h = c = np.zeros(model.hidden_size)
        outputs.append([])
        weightings.append([])
        for t, row in enumerate(sequence):
            if lengths is not None and t >= lengths[b]:
                outputs[b].append(np.zeros(s["output.bias"].shape))
                weightings[b].append(np.zeros((count, N)))
                continue
            seen = np.concatenate([row, read.ravel()])
            if model.recurrent:
                z = s["controller.weight_ih"] @ seen + s["controller.bias_ih"]
                z += s["controller.weight_hh"] @ h + s["controller.bias_hh"]
                i, f, g, o = np.split(z, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                h = np.tanh(s["controller.weight"] @ seen + s["controller.bias"])
            given = s["heads.weight"] @ h + s["heads.bias"]
            for k in range(count):
                a = given[k * size : (k + 1) * size]
                key, strength, gate = np.tanh(a[:W]), np.log1p(np.exp(a[W])), sigmoid(a[W + 1])
                sharpness, shift = 1 + np.log1p(np.exp(a[W + 2])), np.exp(a[W + 3 :])
                shift /= shift.sum()
                norms = np.sqrt((memory**2).sum(1) + 1e-12) * np.sqrt((key**2).sum() + 1e-12)
                content = np.exp(strength * (memory @ key) / norms)
                mixed = gate * content / content.sum() + (1 - gate) * w[k]
                moved = np.zeros(N)
                for i in range(N):
                    for j in range(-S, S + 1):
                        moved[(i + j) % N] += shift[j + S] * mixed[i]
                sharp = (moved + 1e-12) ** sharpness
                w[k] = sharp / sharp.sum()
            read = w[:R] @ memory
            for k in range(model.write_heads):
                begin = count * size + 2 * k * W
                erase, add = sigmoid(given[begin : begin + W]), np.tanh(given[begin + W :][:W])
                at = w[R + k][:, None]
                memory = memory * (1 - at * erase) + at * add
            y = s["output.weight"] @ np.concatenate([h, read.ravel()]) + s["output.bias"]
            outputs[b].append(y)
            weightings[b].append(w.copy())
    return np.array(outputs), np.array(weightings)


def machine(**settings):
    return nn.NTM(3, 2, slots=6, width=4, hidden_size=5, **settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_outputs_and_weightings(settings):
    model = machine(**settings)
    x, lengths = np.random.default_rng(0).standard_normal((3, 7, 3)), np.array([7, 4, 0])
    for given in ((x,), (x, lengths)):
        y, w = model.predict(given[0].astype(np.float32), *given[1:])
        want, places = naive(model, x, *given[1:])
        np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(w, places, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(w[0].sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_gradients_are_those_of_differences(settings):
    class Outputs(nn.Module):
        def __init__(self):
            self.ntm = nn.NTM(2, 2, slots=5, width=2, hidden_size=3, **settings)

        def forward(self, x):
            y, w = self.ntm(x)
            return ops.concatenate(y, ops.reshape(w, *w.shape[:2], -1))

    assert gradcheck(Outputs(), np.random.default_rng(1).standard_normal((2, 3, 2)))


def test_any_number_of_workers_gives_the_same_bits():
    x = np.random.default_rng(2).standard_normal((8, 6, 3)).astype(np.float32)
    y, found = x[:, :, :2] > 0, []
    for workers in (1, 2):

        class First(nn.Module):
            def __init__(self):
                self.ntm = machine()

            def forward(self, x):
                return self.ntm(x)[0]

        trainer = fnn.Trainer(First(), "bce_with_logits", "adam", seed=3, workers=workers)
        trainer.fit(x, y.astype(np.float32), epochs=3, batch_size=4, verbose=False)
        found.append({n: p.tobytes() for n, p in trainer.model.state_dict().items()})
    assert found[0] == found[1]


def test_bad_arguments():
    with pytest.raises(OptionError, match="controller"):
        machine(controller="gru")
    with pytest.raises(OptionError, match="more slots than 6"):
        machine(shift=3)
    with pytest.raises(OptionError, match="read_heads"):
        machine(read_heads=0)
    with pytest.raises(ShapeError, match=r"\(batch, steps, 3\)"):
        machine().predict(np.ones((2, 3, 4), np.float32))

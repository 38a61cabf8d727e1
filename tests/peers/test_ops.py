"""Functions of symbolic values beside PyTorch's: values and gradients, ties and NaN included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.testing import gradcheck
from tests.graph.test_symbolic import compute
from tests.graph.test_symbolic_edges import gradient

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers

RNG = np.random.default_rng(0)
X = RNG.integers(-3, 4, (4, 3, 5)).astype(float)  # many ties, and zeros
Y = RNG.integers(-3, 4, (4, 3, 5)).astype(float)
INDEX = RNG.integers(0, 3, (4, 6, 5))

#: label -> (ours, theirs)
SAME: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "amax": (lambda x: ops.max(x, 1), lambda x: torch.amax(x, 1)),
    "amin over two axes": (lambda x: ops.min(x, (0, 2)), lambda x: torch.amin(x, (0, 2))),
    "maximum": (lambda x: ops.maximum(x, Y), lambda x: torch.maximum(x, torch.tensor(Y))),
    "minimum": (lambda x: ops.minimum(x, Y), lambda x: torch.minimum(x, torch.tensor(Y))),
    "clamp": (lambda x: ops.clip(x, -1.0, 2.0), lambda x: torch.clamp(x, -1.0, 2.0)),
    "abs": (abs, abs),
    "prod": (lambda x: ops.prod(x, 2), lambda x: torch.prod(x, 2)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1)),
    "softmax": (lambda x: ops.softmax(x, 1), lambda x: torch.softmax(x, 1)),
    "cumsum": (lambda x: ops.cumsum(x, 0), lambda x: torch.cumsum(x, 0)),
    "gather": (lambda x: ops.gather(x, INDEX, 1),
               lambda x: torch.gather(x, 1, torch.tensor(INDEX))),
    "pow": (lambda x: x**5, lambda x: x**5),
    "erf": (ops.erf, torch.erf),
    "sin": (ops.sin, torch.sin),
    "cos": (ops.cos, torch.cos),
    "where": (lambda x: ops.where(x > 0, x, -2.0 * x), lambda x: torch.where(x > 0, x, -2.0 * x)),
    "matmul": (lambda x: x @ ops.transpose(x), lambda x: x @ x.transpose(1, 2)),
    "slices": (lambda x: x[:, ::2, -2], lambda x: x[:, ::2, -2]),
    "division": (lambda x: 1.0 / (x * x + 1.0), lambda x: 1.0 / (x * x + 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_values_and_gradients(name: str) -> None:
    ours, theirs = SAME[name]
    x = torch.tensor(X, requires_grad=True)
    y = theirs(x)
    np.testing.assert_allclose(compute(ours, X), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    dy = RNG.normal(size=tuple(y.shape))
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(gradient(ours, X, dy), x.grad.numpy(), rtol=1e-11, atol=1e-12)


class Projected(nn.Module):
    """An LSTM with initial states and lengths as inputs."""

    def __init__(self, **options: Any):
        self.lstm = nn.LSTM(3, 5, proj_size=2, **options)

    def forward(self, x: Any, h: Any, c: Any, lengths: Any) -> Any:
        directions = len(self.lstm._suffixes())
        state = [(h[:, k], c[:, k]) for k in range(directions)]
        y, finals = self.lstm(x, state, lengths)
        return y, ops.stack([h for h, _ in finals], axis=1), ops.stack(
            [c for _, c in finals], axis=1
        )  # fmt: skip


LENGTHS = np.array([4, 1, 6, 3])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_projected_lstm(options: dict[str, Any]) -> None:
    model, count = Projected(**options), 4 if options else 1
    x, h, c = (RNG.normal(size=s) for s in ((4, 6, 3), (4, count, 2), (4, count, 5)))
    state = {n.removeprefix("lstm."): v for n, v in model.state_dict().items()}
    peer = torch.nn.LSTM(3, 5, batch_first=True, proj_size=2, **options)
    peer.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()})
    pack = torch.nn.utils.rnn.pack_padded_sequence
    given = pack(torch.tensor(x).float(), torch.tensor(LENGTHS), True, False)
    first = (torch.tensor(s).float().transpose(0, 1).contiguous() for s in (h, c))
    with torch.no_grad():
        y, finals = peer(given, tuple(first))
    y = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]
    want = [y, *(s.transpose(0, 1) for s in finals)]
    got = model.predict(*(v.astype(np.float32) for v in (x, h, c)), LENGTHS)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-6)
    assert gradcheck(model, x, h, c, LENGTHS, rtol=1e-4)


def test_projection_is_carried_from_batch_to_batch() -> None:
    layer = nn.LSTM(3, 5, proj_size=2, stateful=4)
    x = RNG.normal(size=(4, 6, 3)).astype(np.float32)
    whole = nn.LSTM(3, 5, proj_size=2)
    whole.load_state_dict({n: v for n, v in layer.state_dict().items() if "state" not in n})
    want = nn.Sequential(whole).predict(x)
    model = nn.Sequential(layer)
    got = [model.predict(part, batch_size=4) for part in (x[:, :4], x[:, 4:])]
    np.testing.assert_allclose(np.concatenate(got, 1), want, rtol=2e-5, atol=2e-6)


def test_layer_options() -> None:
    x = RNG.normal(size=(6, 4, 5)).astype(np.float32)
    pairs = [
        (nn.LayerNorm((4, 5)), torch.nn.LayerNorm((4, 5))),
        (nn.LayerNorm(5, bias=False), torch.nn.LayerNorm(5, bias=False)),
        (nn.LayerNorm(5, affine=False), torch.nn.LayerNorm(5, elementwise_affine=False)),
        (nn.RMSNorm(5), torch.nn.RMSNorm(5)),
        (nn.RMSNorm((4, 5), 0.1), torch.nn.RMSNorm((4, 5), 0.1)),
    ]
    for ours, theirs in pairs:
        state = {n: RNG.normal(size=p.shape) for n, p in ours.named_arrays().items()}
        ours.load_state_dict(state)
        theirs.load_state_dict({n: torch.tensor(v) for n, v in state.items()})
        want = theirs(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(nn.Sequential(ours).predict(x), want, rtol=1e-4, atol=1e-5)

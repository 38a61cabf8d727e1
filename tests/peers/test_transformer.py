"""Multi-head attention and Transformer layers beside PyTorch's: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers

B, M, N, E, H = 3, 5, 7, 8, 2
LENGTHS, OWN = np.array([7, 3, 5]), np.array([5, 2, 4])
CAUSAL = torch.full((M, M), float("-inf"), dtype=torch.float64).triu(1)


def padding(lengths: np.ndarray, steps: int) -> Any:
    """True where there is nothing to see, as PyTorch has it; floats, as its decoders want it."""
    hidden = torch.from_numpy(np.arange(steps) >= lengths[:, None])
    return torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, float("-inf"))


HIDDEN, OWN_HIDDEN = padding(LENGTHS, N), padding(OWN, M)


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=s) for s in shapes]


Q, K, V = arrays((B, M, E), (B, N, 6), (B, N, 4))
SOURCE, TARGET = arrays((B, N, E), (B, M, E))
LAYER = {"dim_feedforward": 12, "dropout": 0.0}


class Masked(nn.Module):
    """A layer with options, of several inputs."""

    def __init__(self, layer: nn.Module, call: Callable[..., Any]):
        self.layer, self.call = layer, call

    def forward(self, *inputs: Any) -> Any:
        return self.call(self.layer, *inputs)


def their_layer(kind: str, **options: Any) -> Any:
    return getattr(torch.nn, kind)(E, H, batch_first=True, **LAYER, **options)


#: name -> ours, its call of (layer, *inputs), theirs, its call, the inputs, and valid steps
CASES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "self attention": lambda: (
        nn.MultiHeadAttention(E, H), lambda m, x: m(x),
        torch.nn.MultiheadAttention(E, H, batch_first=True), lambda m, x: m(x, x, x)[0],
        [TARGET], None,
    ),
    "causal, lengths, no bias": lambda: (
        nn.MultiHeadAttention(E, H, bias=False), lambda m, x, n: m(x, key_lengths=n, causal=True),
        torch.nn.MultiheadAttention(E, H, bias=False, batch_first=True),
        lambda m, x: m(x, x, x, attn_mask=CAUSAL, key_padding_mask=OWN_HIDDEN)[0],
        [TARGET, OWN], OWN,
    ),
    "cross attention": lambda: (
        nn.MultiHeadAttention(E, H), lambda m, q, k, n, o: m(q, k, key_lengths=n, query_lengths=o),
        torch.nn.MultiheadAttention(E, H, batch_first=True),
        lambda m, q, k: m(q, k, k, key_padding_mask=HIDDEN)[0], [TARGET, SOURCE, LENGTHS, OWN], OWN,
    ),
    "other keys and values": lambda: (
        nn.MultiHeadAttention(E, H, kdim=6, vdim=4), lambda m, q, k, v: m(q, k, v),
        torch.nn.MultiheadAttention(E, H, kdim=6, vdim=4, batch_first=True),
        lambda m, q, k, v: m(q, k, v)[0], [Q, K, V], None,
    ),
    "encoder layer": lambda: (
        nn.TransformerEncoderLayer(E, H, **LAYER), lambda m, x, n: m(x, n),
        their_layer("TransformerEncoderLayer"),
        lambda m, x: m(x, src_key_padding_mask=HIDDEN), [SOURCE, LENGTHS], LENGTHS,
    ),
    "encoder layer, norm first": lambda: (
        nn.TransformerEncoderLayer(E, H, **LAYER, norm_first=True, activation="gelu"),
        lambda m, x: m(x),
        their_layer("TransformerEncoderLayer", norm_first=True, activation="gelu"),
        lambda m, x: m(x), [SOURCE], None,
    ),
    "decoder layer": lambda: (
        nn.TransformerDecoderLayer(E, H, **LAYER), lambda m, x, y, o, n: m(x, y, o, n),
        their_layer("TransformerDecoderLayer"),
        lambda m, x, y: m(x, y, tgt_mask=CAUSAL, tgt_key_padding_mask=OWN_HIDDEN,
                          memory_key_padding_mask=HIDDEN),
        [TARGET, SOURCE, OWN, LENGTHS], OWN,
    ),
    "decoder layer, norm first": lambda: (
        nn.TransformerDecoderLayer(E, H, **LAYER, norm_first=True), lambda m, x, y: m(x, y),
        their_layer("TransformerDecoderLayer", norm_first=True),
        lambda m, x, y: m(x, y, tgt_mask=CAUSAL), [TARGET, SOURCE], None,
    ),
    "transformer without biases": lambda: (
        nn.Transformer(E, H, 1, 1, **LAYER, bias=False), lambda m, x, y: m(x, y),
        torch.nn.Transformer(E, H, 1, 1, batch_first=True, bias=False, **LAYER),
        lambda m, x, y: m(x, y, tgt_mask=CAUSAL), [SOURCE, TARGET], None,
    ),
    "transformer": lambda: (
        nn.Transformer(E, H, 2, 2, **LAYER), lambda m, x, y, n, o: m(x, y, n, o),
        torch.nn.Transformer(E, H, 2, 2, batch_first=True, **LAYER),
        lambda m, x, y: m(x, y, tgt_mask=CAUSAL, src_key_padding_mask=HIDDEN,
                          tgt_key_padding_mask=OWN_HIDDEN, memory_key_padding_mask=HIDDEN),
        [SOURCE, TARGET, LENGTHS, OWN], OWN,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name: str) -> None:
    layer, call, theirs, run, inputs, valid = CASES[name]()
    theirs = theirs.double()
    for parameter in theirs.parameters():
        if parameter.ndim == 1:  # biases and gains begin with 0 and 1
            torch.nn.init.normal_(parameter)
    layer.to("float64")
    layer.load_state_dict({k: v.detach().numpy() for k, v in theirs.state_dict().items()})
    kept = {k: np.array(v) for k, v in layer.state_dict().items()}
    assert {k: v.shape for k, v in kept.items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    floats = [torch.from_numpy(x).requires_grad_() for x in inputs if x.dtype.kind == "f"]
    want = run(theirs, *floats)
    seen = np.ones(want.shape[:2], bool)
    if valid is not None:
        seen = np.arange(want.shape[1]) < valid[:, None]
    weight = np.random.default_rng(5).normal(size=want.shape) * seen[..., None]
    (want * torch.from_numpy(weight)).sum().backward()

    ours = Masked(layer, call)
    got = ours.predict(*inputs)
    np.testing.assert_allclose(got[seen], want.detach().numpy()[seen], rtol=1e-9, atol=1e-10)
    step = fnn.compile(
        ours, lambda y, w: ops.sum(y * w), "sgd", dtype="float64", keep_gradients=True
    )
    step(tuple(inputs) if len(inputs) > 1 else inputs[0], weight)
    grads = {n.removeprefix("layer."): p.grad for n, p in ours.named_parameters().items()}
    for n, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            grads[n], parameter.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=n
        )

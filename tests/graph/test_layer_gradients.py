"""Every layer and small nets: gradients against central differences."""

from __future__ import annotations

from typing import Any

import pytest

import fastnn.ops  # noqa: F401  (fills the table)
from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.testing import gradcheck
from tests.graph.test_gradients import SHAPES, away, classes, randomized

LAYERS = {
    "Linear": lambda c: nn.Linear(c, 4),
    "Linear without bias": lambda c: nn.Linear(c, 4, bias=False),
    "ReLU": lambda c: nn.ReLU(),
    "LeakyReLU": lambda c: nn.LeakyReLU(0.2),
    "PReLU": lambda c: nn.PReLU(),
    "PReLU per feature": nn.PReLU,
    "ELU": lambda c: nn.ELU(0.5),
    "SELU": lambda c: nn.SELU(),
    "GELU": lambda c: nn.GELU(),
    "GELU tanh": lambda c: nn.GELU("tanh"),
    "SiLU": lambda c: nn.SiLU(),
    "Sigmoid": lambda c: nn.Sigmoid(),
    "Tanh": lambda c: nn.Tanh(),
    "Softplus": lambda c: nn.Softplus(1.5),
    "Softmax": lambda c: nn.Softmax(),
    "LogSoftmax": lambda c: nn.LogSoftmax(),
    "Maxout": lambda c: nn.Sequential(nn.Linear(c, 6), nn.Maxout(2)),
    "Dropout": lambda c: nn.Dropout(0.3),
    "Dropout classic": lambda c: nn.Dropout(0.3, classic=True),
    "BatchNorm": nn.BatchNorm,
    "LayerNorm": nn.LayerNorm,
    "LayerNorm without affine": lambda c: nn.LayerNorm(c, affine=False),
    "LayerNorm without bias": lambda c: nn.LayerNorm(c, bias=False),
    "BatchNorm without affine": lambda c: nn.BatchNorm(c, affine=False),
    "BatchNorm without running": lambda c: nn.BatchNorm(c, track_running_stats=False),
    "RMSNorm": nn.RMSNorm,
    "RMSNorm without affine": lambda c: nn.RMSNorm(c, 0.1, affine=False),
    "Flatten": lambda c: nn.Sequential(nn.Flatten(), nn.Tanh()),
    "Reshape": lambda c: nn.Sequential(nn.Tanh(), nn.Reshape(-1, 1), nn.Linear(1, 2)),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, shape, training):
    layer = randomized(LAYERS[name](shape[-1]))
    assert gradcheck(layer, away(shape), training=training)


def test_every_layer_has_a_case():
    from fastnn.nn import Loss, Module

    layers = {
        name for name in nn.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), Module)
        and not issubclass(getattr(nn, name), Loss)
    }  # fmt: skip
    here = {name.split()[0] for name in LAYERS}
    elsewhere = {"Add", "Concatenate", "Embedding", "Identity", "Module", "Multiply", "Sequential"}
    elsewhere |= {"ModuleDict", "ModuleList", "Recurrent"}
    elsewhere |= {
        "AnnealedDropout",
        "DropConnect",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout",
        "Standout",
        "StochasticDepth",
    }  # fmt: skip (in tests/nn/test_noise.py)
    elsewhere |= {"MinMaxScale", "RobustScale", "Standardize", "UnitNorm", "Whiten"}
    elsewhere |= {name for name in layers if "Pool" in name} | {"Upsample"}
    elsewhere |= {"Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"}
    # in tests/nn: test_audio.py, test_channels.py, test_reparametrization.py, test_gated.py
    elsewhere |= {"BatchNorm1d", "BatchNorm2d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d"}
    elsewhere |= {"Frames", "SincConv", "SpecAugment"}
    # test_alignment.py, test_transformer.py, test_ctc_decoder.py, test_crf.py, test_char_cnn.py,
    # test_ntm.py and test_key_value.py
    elsewhere |= {name for name in layers if name.endswith(("Attention", "Positions"))}
    elsewhere |= {"Transformer", "TransformerDecoder", "TransformerDecoderLayer", "CTCDecoder"}
    elsewhere |= {"AdaptiveLogSoftmaxWithLoss", "SampledSoftmax"}
    elsewhere |= {"Transducer", "TransducerDecoder"}
    elsewhere |= {"AttentionDecoder", "TransformerEncoder", "TransformerEncoderLayer"}
    # test_transducer_search.py, test_adaptive_softmax.py, test_sampled_softmax.py
    elsewhere |= {"Transducer", "TransducerDecoder"}
    elsewhere |= {"AdaptiveLogSoftmaxWithLoss", "SampledSoftmax"}
    elsewhere |= {
        "NTM",
        "KeyValueMemory",
        "CRF",
        "CharCNN",
        "GLU",
        "GTU",
        "Pad",
        "Permute",
        "SpectralNorm",
        "WeightNorm",
    }
    recurrent = {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell", "SCRN"}
    assert layers - recurrent == here | elsewhere


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layer", [nn.Add(), nn.Multiply(), nn.Concatenate()], ids=repr)
def test_layers_of_several_inputs(layer, shape):
    assert gradcheck(layer, away(shape), away(shape, 1), away(shape, 2))


@pytest.mark.parametrize("layer", [nn.Add(), nn.Multiply(), nn.Concatenate()], ids=repr)
def test_layers_of_several_inputs_want_one_at_least(layer):
    class Called(nn.Module):
        def forward(self, x):
            return layer()

    with pytest.raises(ShapeError, match=r"expected (one or more inputs|at least one)"):
        Called().predict(away((2, 3)))


@pytest.mark.parametrize("padding", [None, 6])
def test_embedding(padding):
    model = randomized(nn.Sequential(nn.Embedding(7, 5, padding_idx=padding), nn.Linear(5, 3)))
    assert gradcheck(model, classes((7, 4, 6)))  # the padding index 6 does not occur


def test_the_padding_vector_has_no_gradient():
    model = nn.Sequential(nn.Embedding(7, 5, padding_idx=1))
    ids = classes((7, 4, 6))
    assert (ids == 1).any()
    with pytest.raises(AssertionError, match=r"index \(1, \d\): analytic gradient 0, numeric"):
        gradcheck(model, ids)


# ---------------------------------------------------------------- graphs


class Dag(nn.Module):
    """Values with several uses, a layer used twice, and paths of different lengths."""

    def __init__(self, size: int):
        self.a, self.b = nn.Linear(size, size), nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)
        self.scale = nn.Parameter((size,), "normal")

    def forward(self, x: Any) -> Any:
        h = ops.tanh(self.a(x))
        k = self.b(h) + self.a(h) * h - x
        m = self.norm(k) * self.scale + ops.concatenate(h, k).reshape(*k.shape[:-1], 2, -1).reshape(
            *k.shape[:-1], 2 * k.shape[-1]
        ).graph.apply("slice", x=ops.concatenate(h, k), offset=2, width=k.shape[-1])
        return m / (ops.square(h) + 1.5), ops.mean(k)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(9, 6), (5, 3, 6)], ids=str)
def test_dag_with_two_outputs(shape, training):
    assert gradcheck(randomized(Dag(6)), away(shape), training=training)


class Deep(nn.Module):
    """Modules within modules within modules, one of them in two places."""

    def __init__(self, depth: int, shared: nn.Module):
        self.layer, self.shared = nn.Linear(4, 4), shared
        self.inner = Deep(depth - 1, shared) if depth else nn.Tanh()
        self.norm = nn.BatchNorm(4)

    def forward(self, x: Any) -> Any:
        return self.norm(self.inner(self.shared(ops.tanh(self.layer(x))))) + x


def test_deep_scopes_and_shared_layers():
    assert gradcheck(randomized(Deep(4, nn.Linear(4, 4)), 11), away((10, 4)), rtol=1e-4)


def test_loss_of_a_network():
    class Net(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm(8), nn.SiLU(), nn.Dropout(0.2))
            self.head = nn.Linear(8, 4)
            self.loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=[1.0, 2.0, 0.5, 1.0])

        def forward(self, x, y):
            return self.loss(self.head(self.body(x)), y)

    for training in (True, False):
        assert gradcheck(randomized(Net()), away((12, 5)), classes((12, 4)), training=training)

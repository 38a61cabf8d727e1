"""Layers, losses and initialisers."""

from fastnn.nn import init
from fastnn.nn.activation import (
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastnn.nn.cells import GRUCell, LSTMCell, RNNCell
from fastnn.nn.containers import Identity, ModuleDict, ModuleList, Sequential
from fastnn.nn.linear import Embedding, Linear
from fastnn.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.recurrent import Recurrent
from fastnn.nn.regularization import BatchNorm, Dropout, LayerNorm, RMSNorm
from fastnn.nn.rnn import GRU, LSTM, RNN
from fastnn.nn.scrn import SCRN
from fastnn.nn.shape import Add, Concatenate, Flatten, Multiply, Reshape

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SCRN",
    "SELU",
    "Add",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "Concatenate",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Maxout",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Multiply",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "RMSNorm", "RNNCell",
    "ReLU",
    "Recurrent",
    "Reshape",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "init",
]  # fmt: skip

"""Layers, losses and initialisers."""

from fastnn.nn import init as init
from fastnn.nn.activation import ELU as ELU
from fastnn.nn.activation import GELU as GELU
from fastnn.nn.activation import SELU as SELU
from fastnn.nn.activation import LeakyReLU as LeakyReLU
from fastnn.nn.activation import LogSoftmax as LogSoftmax
from fastnn.nn.activation import Maxout as Maxout
from fastnn.nn.activation import PReLU as PReLU
from fastnn.nn.activation import ReLU as ReLU
from fastnn.nn.activation import Sigmoid as Sigmoid
from fastnn.nn.activation import SiLU as SiLU
from fastnn.nn.activation import Softmax as Softmax
from fastnn.nn.activation import Softplus as Softplus
from fastnn.nn.activation import Tanh as Tanh
from fastnn.nn.cells import GRUCell as GRUCell
from fastnn.nn.cells import LSTMCell as LSTMCell
from fastnn.nn.cells import RNNCell as RNNCell
from fastnn.nn.containers import Identity as Identity
from fastnn.nn.containers import ModuleDict as ModuleDict
from fastnn.nn.containers import ModuleList as ModuleList
from fastnn.nn.containers import Sequential as Sequential
from fastnn.nn.linear import Embedding as Embedding
from fastnn.nn.linear import Linear as Linear
from fastnn.nn.loss import BCELoss as BCELoss
from fastnn.nn.loss import BCEWithLogitsLoss as BCEWithLogitsLoss
from fastnn.nn.loss import CrossEntropyLoss as CrossEntropyLoss
from fastnn.nn.loss import HuberLoss as HuberLoss
from fastnn.nn.loss import KLDivLoss as KLDivLoss
from fastnn.nn.loss import L1Loss as L1Loss
from fastnn.nn.loss import Loss as Loss
from fastnn.nn.loss import MSELoss as MSELoss
from fastnn.nn.loss import NLLLoss as NLLLoss
from fastnn.nn.loss import SmoothL1Loss as SmoothL1Loss
from fastnn.nn.module import Module as Module
from fastnn.nn.parameter import Parameter as Parameter
from fastnn.nn.recurrent import Recurrent as Recurrent
from fastnn.nn.regularization import BatchNorm as BatchNorm
from fastnn.nn.regularization import Dropout as Dropout
from fastnn.nn.regularization import LayerNorm as LayerNorm
from fastnn.nn.regularization import RMSNorm as RMSNorm
from fastnn.nn.rnn import GRU as GRU
from fastnn.nn.rnn import LSTM as LSTM
from fastnn.nn.rnn import RNN as RNN
from fastnn.nn.scrn import SCRN as SCRN
from fastnn.nn.shape import Add as Add
from fastnn.nn.shape import Concatenate as Concatenate
from fastnn.nn.shape import Flatten as Flatten
from fastnn.nn.shape import Multiply as Multiply
from fastnn.nn.shape import Reshape as Reshape

# "name as name" above makes a class public: for type checkers, and so for all others
__all__ = ["init", *(n for n, c in globals().items() if isinstance(c, type))]

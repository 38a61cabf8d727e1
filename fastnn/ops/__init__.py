"""Functions on symbolic values, for the `forward` of modules.

Operands may also be parameters, NumPy arrays (constants) and numbers. Shapes are checked here, when
the model is traced, with errors that name the layer.
"""

import sys
from types import FunctionType

import fastnn.ops.loss
import fastnn.ops.metric
import fastnn.ops.strided  # noqa: F401  (ops without a function here, and what gradients are made of)
from fastnn.graph.methods import provide
from fastnn.ops.activation import absolute as absolute
from fastnn.ops.activation import elu as elu
from fastnn.ops.activation import erf as erf
from fastnn.ops.activation import exp as exp
from fastnn.ops.activation import gelu as gelu
from fastnn.ops.activation import leaky_relu as leaky_relu
from fastnn.ops.activation import log as log
from fastnn.ops.activation import maxout as maxout
from fastnn.ops.activation import prelu as prelu
from fastnn.ops.activation import relu as relu
from fastnn.ops.activation import selu as selu
from fastnn.ops.activation import sigmoid as sigmoid
from fastnn.ops.activation import silu as silu
from fastnn.ops.activation import softplus as softplus
from fastnn.ops.activation import sqrt as sqrt
from fastnn.ops.activation import square as square
from fastnn.ops.activation import tanh as tanh
from fastnn.ops.arithmetic import add as add
from fastnn.ops.arithmetic import affine as affine
from fastnn.ops.arithmetic import clip as clip
from fastnn.ops.arithmetic import detach as detach
from fastnn.ops.arithmetic import divide as divide
from fastnn.ops.arithmetic import equal as equal
from fastnn.ops.arithmetic import greater as greater
from fastnn.ops.arithmetic import greater_equal as greater_equal
from fastnn.ops.arithmetic import less as less
from fastnn.ops.arithmetic import less_equal as less_equal
from fastnn.ops.arithmetic import maximum as maximum
from fastnn.ops.arithmetic import minimum as minimum
from fastnn.ops.arithmetic import multiply as multiply
from fastnn.ops.arithmetic import negate as negate
from fastnn.ops.arithmetic import not_equal as not_equal
from fastnn.ops.arithmetic import power as power
from fastnn.ops.arithmetic import subtract as subtract
from fastnn.ops.arithmetic import where as where
from fastnn.ops.derivative import gradient as gradient
from fastnn.ops.derivative import tangent as tangent
from fastnn.ops.linear import embedding as embedding
from fastnn.ops.linear import linear as linear
from fastnn.ops.matmul import matmul as matmul
from fastnn.ops.norm import batch_norm as batch_norm
from fastnn.ops.norm import dropout as dropout
from fastnn.ops.norm import layer_norm as layer_norm
from fastnn.ops.norm import rms_norm as rms_norm
from fastnn.ops.operands import as_value as as_value
from fastnn.ops.operands import graph_of as graph_of
from fastnn.ops.projection import projected_lstm as projected_lstm
from fastnn.ops.recurrent import gru as gru
from fastnn.ops.recurrent import leaky as leaky
from fastnn.ops.recurrent import lstm as lstm
from fastnn.ops.recurrent import rnn as rnn
from fastnn.ops.recurrent import swap_time as swap_time
from fastnn.ops.reduce import cumsum as cumsum
from fastnn.ops.reduce import log_softmax as log_softmax
from fastnn.ops.reduce import logsumexp as logsumexp
from fastnn.ops.reduce import max as max
from fastnn.ops.reduce import mean as mean
from fastnn.ops.reduce import min as min
from fastnn.ops.reduce import prod as prod
from fastnn.ops.reduce import softmax as softmax
from fastnn.ops.reduce import sum as sum
from fastnn.ops.reduce import sum_features as sum_features
from fastnn.ops.reduce import total as total
from fastnn.ops.sequence import load_state as load_state
from fastnn.ops.sequence import loop as loop
from fastnn.ops.sequence import store_state as store_state
from fastnn.ops.sequence import zeros_state as zeros_state
from fastnn.ops.shape import columns as columns
from fastnn.ops.shape import concatenate as concatenate
from fastnn.ops.shape import expand as expand
from fastnn.ops.shape import flatten as flatten
from fastnn.ops.shape import flip as flip
from fastnn.ops.shape import gather as gather
from fastnn.ops.shape import getitem as getitem
from fastnn.ops.shape import pad as pad
from fastnn.ops.shape import permute as permute
from fastnn.ops.shape import reshape as reshape
from fastnn.ops.shape import split as split
from fastnn.ops.shape import squeeze as squeeze
from fastnn.ops.shape import stack as stack
from fastnn.ops.shape import swapaxes as swapaxes
from fastnn.ops.shape import take as take
from fastnn.ops.shape import transpose as transpose
from fastnn.ops.shape import unsqueeze as unsqueeze

# "name as name" above makes a function public: for type checkers, and so for all others
_APART = {"getitem", "provide"}
__all__ = [n for n, f in globals().items() if isinstance(f, FunctionType) and n not in _APART]

provide(sys.modules[__name__])  # they are what a value's operators and methods do

"""Functions on symbolic values, for the `forward` of modules.

Operands may also be parameters, NumPy arrays (constants) and numbers. Shapes are checked here, when
the model is traced, with errors that name the layer. What does not fit is a ShapeError, an option
that there is not an OptionError; both say what was expected, what came, and what to do.

Examples in this package and in `fastnn.nn` take this as given::

    import numpy as np
    import fastnn as fnn
    from fastnn import nn, ops, optim, testing
"""

import sys
from types import FunctionType

import fastnn.ops.loss
import fastnn.ops.metric
import fastnn.ops.strided  # noqa: F401  (ops without a function here, and what gradients are made of)
from fastnn.graph.methods import provide
from fastnn.ops.activation import *
from fastnn.ops.arithmetic import *
from fastnn.ops.attention import *
from fastnn.ops.beam import *
from fastnn.ops.comparison import *
from fastnn.ops.convolution import *
from fastnn.ops.convolution_transposed import *
from fastnn.ops.crf import *
from fastnn.ops.ctc import *
from fastnn.ops.ctc_decode import *
from fastnn.ops.derivative import *
from fastnn.ops.framing import *
from fastnn.ops.gated import *
from fastnn.ops.indexing import *
from fastnn.ops.indexing import _getitem as getitem  # noqa: F401  (x[...])
from fastnn.ops.linear import *
from fastnn.ops.matmul import *
from fastnn.ops.norm import *
from fastnn.ops.operands import as_value as as_value
from fastnn.ops.operands import graph_of as graph_of
from fastnn.ops.pooling import *
from fastnn.ops.pooling_whole import *
from fastnn.ops.projection import *
from fastnn.ops.random import *
from fastnn.ops.recurrent import *
from fastnn.ops.reduce import *
from fastnn.ops.sequence import *
from fastnn.ops.shape import *
from fastnn.ops.transducer import *
from fastnn.ops.transducer_search import *
from fastnn.ops.upsampling import *
from fastnn.public import publish

publish(globals(), FunctionType)
provide(sys.modules[__name__])  # they are what a value's operators and methods do

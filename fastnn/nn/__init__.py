"""Layers, losses and initialisers."""

from fastnn.nn import init as init
from fastnn.nn.activation import *
from fastnn.nn.alignment import *
from fastnn.nn.attention import *
from fastnn.nn.audio import *
from fastnn.nn.cells import *
from fastnn.nn.channels import *
from fastnn.nn.constant import *
from fastnn.nn.containers import *
from fastnn.nn.convolution import *
from fastnn.nn.ctc import *
from fastnn.nn.ctc_decoder import *
from fastnn.nn.decoder import *
from fastnn.nn.gated import *
from fastnn.nn.large_softmax import *
from fastnn.nn.linear import *
from fastnn.nn.loss import *
from fastnn.nn.module import *
from fastnn.nn.noise import *
from fastnn.nn.normalization import *
from fastnn.nn.parameter import *
from fastnn.nn.penalty import *
from fastnn.nn.pooling import *
from fastnn.nn.recurrent import *
from fastnn.nn.regularization import *
from fastnn.nn.reparametrization import *
from fastnn.nn.rnn import *
from fastnn.nn.sampled_softmax import *
from fastnn.nn.scrn import *
from fastnn.nn.shape import *
from fastnn.nn.transducer import *
from fastnn.nn.transformer import *
from fastnn.nn.upsampling import *
from fastnn.public import publish

publish(globals(), type, "init", "detached")

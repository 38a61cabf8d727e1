"""Optimisers and learning-rate schedules."""

from fastnn.kernels import elsewhere
from fastnn.optim import schedules
from fastnn.optim.adam import Adam, AdamW
from fastnn.optim.adamax import Adamax
from fastnn.optim.adaptive import Adadelta, Adagrad, RMSprop
from fastnn.optim.delta_bar_delta import DeltaBarDelta
from fastnn.optim.lion import Lion
from fastnn.optim.nadam import NAdam
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.quickprop import Quickprop
from fastnn.optim.radam import RAdam
from fastnn.optim.rprop import IRprop, Rprop
from fastnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "DeltaBarDelta",
    "IRprop",
    "Lion",
    "NAdam",
    "Optimizer",
    "Quickprop",
    "RAdam",
    "RMSprop",
    "Rprop",
    "schedules",
]

elsewhere.enter("fastnn.optim.forms")

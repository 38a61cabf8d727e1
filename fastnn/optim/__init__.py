"""Optimisers and learning-rate schedules."""

from fastnn.kernels import elsewhere
from fastnn.optim import schedules
from fastnn.optim.adam import Adam, AdamW
from fastnn.optim.adaptive import Adadelta, Adagrad, RMSprop
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "schedules"]

elsewhere.enter("fastnn.optim.forms")

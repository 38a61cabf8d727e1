"""Optimisers and learning-rate schedules."""

from fastnn.kernels import elsewhere
from fastnn.optim import schedules
from fastnn.optim.adafactor import Adafactor
from fastnn.optim.adam import Adam, AdamW
from fastnn.optim.adamax import Adamax
from fastnn.optim.adaptive import Adadelta, Adagrad, RMSprop
from fastnn.optim.adasecant import AdaSecant
from fastnn.optim.asgd import ASGD
from fastnn.optim.averages import EMA, SWA, Lookahead
from fastnn.optim.delta_bar_delta import DeltaBarDelta
from fastnn.optim.full_batch import LBFGS, ConjugateGradient
from fastnn.optim.gauss_newton import HessianFree, LevenbergMarquardt
from fastnn.optim.lamb import LAMB
from fastnn.optim.lion import Lion
from fastnn.optim.muon import Muon
from fastnn.optim.nadam import NAdam
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.quickprop import Quickprop
from fastnn.optim.radam import RAdam
from fastnn.optim.rprop import IRprop, Rprop
from fastnn.optim.schedule_free import ScheduleFreeAdamW
from fastnn.optim.sgd import SGD
from fastnn.optim.vsgd import VSGD, VSGDfd

__all__ = [
    "ASGD",
    "EMA",
    "LAMB",
    "LBFGS",
    "SGD",
    "SWA",
    "VSGD",
    "AdaSecant",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ConjugateGradient",
    "DeltaBarDelta",
    "HessianFree",
    "IRprop",
    "LevenbergMarquardt",
    "Lion",
    "Lookahead",
    "Muon",
    "NAdam",
    "Optimizer",
    "Quickprop",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "VSGDfd",
    "schedules",
]

elsewhere.enter("fastnn.optim.forms")

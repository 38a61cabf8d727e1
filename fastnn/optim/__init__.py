"""Optimisers and learning-rate schedules, each imported when it is asked for."""

from typing import TYPE_CHECKING

from fastnn.kernels import external
from fastnn.public import lazily

#: by module, the classes that are public
_CLASSES = {
    "adafactor": "Adafactor",
    "adam": "Adam AdamW",
    "adamax": "Adamax",
    "adaptive": "Adadelta Adagrad RMSprop",
    "adasecant": "AdaSecant",
    "asgd": "ASGD",
    "averages": "EMA SWA Lookahead",
    "delta_bar_delta": "DeltaBarDelta",
    "full_batch": "LBFGS ConjugateGradient",
    "gauss_newton": "HessianFree LevenbergMarquardt",
    "lamb": "LAMB",
    "lion": "Lion",
    "muon": "Muon",
    "nadam": "NAdam",
    "optimizer": "Optimizer",
    "quickprop": "Quickprop",
    "radam": "RAdam",
    "rprop": "IRprop Rprop",
    "schedule_free": "ScheduleFreeAdamW",
    "sgd": "SGD",
    "vsgd": "VSGD VSGDfd",
}

if TYPE_CHECKING:
    from fastnn.optim import schedules as schedules
    from fastnn.optim.adafactor import Adafactor as Adafactor
    from fastnn.optim.adam import Adam as Adam
    from fastnn.optim.adam import AdamW as AdamW
    from fastnn.optim.adamax import Adamax as Adamax
    from fastnn.optim.adaptive import Adadelta as Adadelta
    from fastnn.optim.adaptive import Adagrad as Adagrad
    from fastnn.optim.adaptive import RMSprop as RMSprop
    from fastnn.optim.adasecant import AdaSecant as AdaSecant
    from fastnn.optim.asgd import ASGD as ASGD
    from fastnn.optim.averages import EMA as EMA
    from fastnn.optim.averages import SWA as SWA
    from fastnn.optim.averages import Lookahead as Lookahead
    from fastnn.optim.delta_bar_delta import DeltaBarDelta as DeltaBarDelta
    from fastnn.optim.full_batch import LBFGS as LBFGS
    from fastnn.optim.full_batch import ConjugateGradient as ConjugateGradient
    from fastnn.optim.gauss_newton import HessianFree as HessianFree
    from fastnn.optim.gauss_newton import LevenbergMarquardt as LevenbergMarquardt
    from fastnn.optim.lamb import LAMB as LAMB
    from fastnn.optim.lion import Lion as Lion
    from fastnn.optim.muon import Muon as Muon
    from fastnn.optim.nadam import NAdam as NAdam
    from fastnn.optim.optimizer import Optimizer as Optimizer
    from fastnn.optim.quickprop import Quickprop as Quickprop
    from fastnn.optim.radam import RAdam as RAdam
    from fastnn.optim.rprop import IRprop as IRprop
    from fastnn.optim.rprop import Rprop as Rprop
    from fastnn.optim.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
    from fastnn.optim.sgd import SGD as SGD
    from fastnn.optim.vsgd import VSGD as VSGD
    from fastnn.optim.vsgd import VSGDfd as VSGDfd

__all__, __getattr__, __dir__ = lazily(__name__, _CLASSES, "schedules")
external.enter("fastnn.optim.forms")

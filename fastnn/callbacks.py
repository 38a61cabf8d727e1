"""Callbacks: stopping early, checkpoints, tables, learning rates, progress, health.

>>> from fastnn.callbacks import EarlyStopping
>>> EarlyStopping("loss", patience=3).stop_reason
''
"""

from fastnn.diagnostics.statistics import LayerStatistics
from fastnn.train.annealing import AnnealDropout
from fastnn.train.average_trigger import AverageTrigger
from fastnn.train.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    GradientHealth,
    LambdaCallback,
    LearningRateScheduler,
    Logs,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
    ResetStates,
    TrainerLike,
)

__all__ = [
    "AnnealDropout",
    "AverageTrigger",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "GradientHealth",
    "LambdaCallback",
    "LayerStatistics",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "ResetStates",
    "TrainerLike",
]

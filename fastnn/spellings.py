"""Names that other libraries have, and what to write here: for the errors of those who try them.

Whoever passes ``validation_data=`` to `fit`, ``criterion=`` to `Trainer` or ``learning_rate=`` to
an optimiser, or calls ``model.eval()``, knows Keras or PyTorch, and is told the remedy.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from fastnn.errors import UnknownArgumentError

P = ParamSpec("P")
R = TypeVar("R")

_RATE = "it belongs to the optimizer: optimizer=optim.Adam(lr=0.001) of Trainer or fnn.compile"
_TO_FIT = "pass it to fit"
_TO_TRAINER = "pass it to Trainer, or fnn.compile"
_SHOWN = "leave it out: nothing is shown"
_VALIDATION = "write validation=(x, y), or the fraction of samples to hold out"
_EPOCH = "an epoch is one pass over the data: for shorter ones pass an iterable of fewer batches"
_WEIGHTS = "pass sample_weight, or give the loss weights: nn.CrossEntropyLoss(weight=...)"

#: of functions, by name of the argument; those of a function come before those of all
ARGUMENTS: dict[str, dict[str, str]] = {
    "": {
        **dict.fromkeys(("lr", "learning_rate"), _RATE),
        **dict.fromkeys(
            ("lr_scheduler", "scheduler", "lr_schedule"),
            "it belongs to the optimizer: optim.Adam(lr=0.001, schedule=optim.schedules...)",
        ),
        **dict.fromkeys(("criterion", "loss_fn", "loss_function", "losses"), "it is called loss"),
        **dict.fromkeys(("optimiser", "opt"), "it is called optimizer"),
        **dict.fromkeys(("metric",), "it is called metrics"),
        **dict.fromkeys(
            ("validation_data", "validation_split", "val_data", "val", "eval_set", "x_val"),
            _VALIDATION,
        ),
        **dict.fromkeys(
            ("num_epochs", "n_epochs", "max_epochs", "nb_epoch", "epoch"), "it is called epochs"
        ),
        **dict.fromkeys(("batchsize", "bs", "mini_batch_size"), "it is called batch_size"),
        **dict.fromkeys(("steps_per_epoch", "validation_steps", "steps"), _EPOCH),
        **dict.fromkeys(("class_weight", "class_weights"), _WEIGHTS),
        **dict.fromkeys(("sample_weights", "weights"), "it is called sample_weight"),
        **dict.fromkeys(("num_workers", "n_jobs"), f"it is called workers: {_TO_TRAINER}"),
        **dict.fromkeys(
            ("workers", "device", "dtype", "seed", "metrics", "loss", "optimizer", "precision"),
            _TO_TRAINER,
        ),
        **dict.fromkeys(
            ("epochs", "callbacks", "batch_size", "shuffle", "verbose", "validation"), _TO_FIT
        ),
        "initial_epoch": "a run continues by resume=, from a checkpoint that Trainer.save wrote",
        "validation_freq": "validation follows each epoch; call evaluate where you want others",
        "ckpt_path": "it is called resume",
        "random_state": f"it is called seed: {_TO_TRAINER}",
        "grad_clip": "it belongs to the optimizer: optim.Adam(clip_global_norm=1.0)",
    },
    "Trainer.evaluate": {"verbose": _SHOWN, "callbacks": "callbacks are those of fit"},
    "compile": {
        **dict.fromkeys(
            ("epochs", "batch_size", "callbacks", "validation", "validation_data"),
            "a step takes one mini-batch; fnn.Trainer(model, loss).fit(x, y) has all of these",
        ),
        "metrics": "a step returns the loss; use Trainer for metrics",
        "run_eagerly": "leave it out: a step is always compiled",
        "jit_compile": "leave it out: a step is always compiled",
        "mode": "leave it out: there is one way to compile",
    },
}  # fmt: skip

#: of optimisers, what an option is called
OPTIONS = {
    "learning_rate": "lr", "alpha": "lr", "eta": "lr", "epsilon": "eps", "beta1": "betas",
    "beta2": "betas", "beta_1": "betas", "beta_2": "betas", "b1": "betas", "b2": "betas",
    "clipnorm": "clip_norm", "clipvalue": "clip_value", "global_clipnorm": "clip_global_norm",
    "max_grad_norm": "clip_global_norm", "decay": "weight_decay", "l2": "weight_decay",
    "weight_decay_rate": "weight_decay", "lr_scheduler": "schedule", "scheduler": "schedule",
    "accumulation_steps": "accumulate", "gradient_accumulation_steps": "accumulate",
    "param_groups": "groups", "params": "groups",
}  # fmt: skip

_FIT = "fnn.Trainer(model, loss).fit(x, y) trains a model"
_MODES = "training and evaluation mode follow from what is called (fit; evaluate, predict)"
_STEP = "step = fnn.compile(model, loss, optimizer) takes one step: step(x, y)"
_STATE = "save and load, or state_dict and load_state_dict, are for the parameters"

#: of models and trainers
ATTRIBUTES: dict[str, dict[str, str]] = {
    "Module": {
        **dict.fromkeys(("fit", "compile", "evaluate", "score"), _FIT),
        **dict.fromkeys(("train", "eval"), _MODES),
        **dict.fromkeys(("zero_grad", "backward", "train_on_batch", "train_step"), _STEP),
        **dict.fromkeys(
            ("save_weights", "load_weights", "get_weights", "set_weights"), _STATE
        ),
        **dict.fromkeys(("double", "float", "half"), "to(...) chooses device or type"),
        **dict.fromkeys(
            ("weights", "trainable_variables", "trainable_weights"), "see named_parameters()"
        ),
        **dict.fromkeys(("predict_on_batch", "predict_proba"), "call predict"),
        "count_params": "summary() counts parameters",
        "add": "append adds a layer to a Sequential",
    },
    "Trainer": {
        **dict.fromkeys(("train", "train_on_batch", "train_step"), f"fit trains; {_STEP}"),
        **dict.fromkeys(("test", "validate", "test_on_batch", "score"), "call evaluate"),
        **dict.fromkeys(("compile",), "loss, optimizer and metrics are arguments of Trainer"),
        **dict.fromkeys(("predict_on_batch",), "call predict"),
        **dict.fromkeys(("save_weights", "load_weights"), "model.save and model.load are for them"),
        "resume": "fit(x, y, resume=path) continues a run",
        "summary": "call model.summary()",
    },
}  # fmt: skip


def told(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose unknown arguments are answered with the remedy, by UnknownArgumentError."""
    known = tuple(inspect.signature(function).parameters)
    label = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        for name in named:
            if name not in known:
                raise UnknownArgumentError(f"{label}: {unknown(label, name, known)}")
        return function(*args, **named)

    return call


def unknown(label: str, name: str, known: Iterable[str]) -> str:
    """What to say of an argument that a function does not have."""
    remedy = ARGUMENTS.get(label, {}).get(name) or ARGUMENTS[""].get(name)
    return f"unknown argument {name!r}; {remedy or _nearest(name, known)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    there = [n for n in known if n != "self"]
    near = difflib.get_close_matches(name, there, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected some of {sorted(there)}"


def missing(thing: object, kind: str, name: str) -> AttributeError:
    """The error for an attribute that a model or a trainer (`kind`) does not have; that of a
    property, which has failed by one, is raised again."""
    if hasattr(type(thing), name):
        object.__getattribute__(thing, name)
        return AttributeError(
            f"property {name!r} of {type(thing).__name__!r} has raised an AttributeError and did "
            "not when it was read again; have it give the same each time, or raise another error",
            name=name, obj=thing,
        )  # fmt: skip
    remedy = ATTRIBUTES.get(kind, {}).get(name)
    more = f"; {remedy}" if remedy else ""
    return AttributeError(
        f"{type(thing).__name__!r} object has no attribute {name!r}{more}", name=name, obj=thing
    )

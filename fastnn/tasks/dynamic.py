"""Dynamic evaluation: a language model that goes on learning from the text it is measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, optim
from fastnn.data.text import batchify
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.tasks import training
from fastnn.tasks.language import IGNORED, LanguageModel
from fastnn.train.stateful import ResetStates
from fastnn.train.trainer import Trainer

#: each dropout of a model
DROPOUT = ("dropout", "weight_drop", "word_dropout")


def dynamic_loss(
    model: LanguageModel,
    ids: NDArray[np.int64],
    *,
    lr: float = 0.1,
    steps: int = 20,
    workers: int | str = "auto",
) -> float:
    """Mean negative log-likelihood of a text's symbols but the first, in nats, read in one stream
    by a model that learns while it reads (Krause et al. 2018, "Dynamic evaluation of neural
    sequence models"): after each `steps` symbols, whose loss counts as it was, comes a step of SGD
    on that loss.

    It is another measure than `fastnn.tasks.language.mean_loss`, with which it agrees at a rate of
    0. The model itself stays as it is.

    Args:
        model: the language model, an LSTM.
        ids: the text.
        lr: the learning rate.
        steps: symbols between two updates.
        workers: see `Trainer`.

    Raises OptionError for another kind of model, negative rates and steps that are none.
    """
    if not isinstance(model, LanguageModel):
        raise OptionError(
            f"dynamic_loss: expected a LanguageModel, whose states last for the whole text, got "
            f"{type(model).__name__}"
        )
    check_numbers("dynamic_loss", lr=lr)
    check_whole("dynamic_loss", 1, steps=steps)
    if lr < 0:
        raise OptionError(f"dynamic_loss: expected a rate lr of 0 or more, got {lr}")
    learner = model.with_streams(1, **dict.fromkeys(DROPOUT, 0.0))
    x, y = (part.reshape(-1, steps) for part in batchify(ids, 1, steps, ignore=IGNORED))
    store = learner.store()
    trainer = Trainer(
        learner, nn.CrossEntropyLoss(ignore_index=IGNORED), optim.SGD(lr=lr, clip_global_norm=1.0),
        workers=workers, dtype=store.dtype, device=store.device,
    )  # fmt: skip
    history = trainer.fit(
        x, y, batch_size=1, shuffle=False, epochs=1, callbacks=[ResetStates()], verbose=False
    )
    training.whole(history)
    return float(history["loss"][0])

"""Language models over symbols (characters or words): an LSTM that reads a text from end to end.

A text is cut into streams that are read side by side; the state is carried from mini-batch to
mini-batch, gradients stop at the first step of the mini-batch (truncated backpropagation through
time).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn, ops, optim
from fastnn.data.text import Vocabulary, batchify
from fastnn.errors import DataError, OptionError
from fastnn.graph.value import Value
from fastnn.nn.method import fixed
from fastnn.optim.schedules import Polynomial, Trapezoid
from fastnn.tasks import description, training
from fastnn.tasks.transformer_lm import TransformerModel
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.stateful import ResetStates, reset_states
from fastnn.train.trainer import Trainer

#: target of the places past the end of a text
IGNORED = -1
#: steps of a sequence where a text is read in one stream, to measure
EXACT = 128


class LanguageModel(nn.Module):
    """Embedding, LSTM layers, logits of the next symbol.

    Args:
        symbols: how many there are.
        embedding: size of a symbol's vector.
        hidden: units of each LSTM layer.
        layers: LSTM layers.
        dropout: probability of zero in the vectors, between the layers, and before the logits.
        spread: deviation of the vectors' numbers at the beginning.
        tied: whether the logits' weights are the vectors (Press & Wolf 2017, "Using the output
            embedding to improve language models"; Inan, Khosravi & Socher 2017). A linear layer
            stands between where `hidden` is another size than `embedding`.
        variational: whether dropout has one mask for all steps of a sequence (Gal & Ghahramani
            2016).
        weight_drop: probability of zero in the recurrent weights (Merity, Keskar & Socher 2018).
        word_dropout: probability that a symbol's vector is zero for a whole mini-batch (Gal &
            Ghahramani 2016).
        sampled: symbols that a training step draws to estimate the softmax (`nn.SampledSoftmax`); 0
            is all of them. The symbols have to be in the order of their frequency.
        augmented: with `sampled` and `tied`, how much symbols that are like the next one count; see
            `nn.SampledSoftmax`. The loss that training reports has this term.
        streams: texts read side by side; all batches have this size.

    Input: ids, shape (streams, steps); output: logits, shape (streams, steps, symbols). With
    `sampled` the next symbols can be a second input; then the output is their losses, (streams,
    steps), in training estimates of them.
    """

    def __init__(
        self,
        symbols: int,
        *,
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.2,
        spread: float = 1.0,
        tied: bool = False,
        variational: bool = False,
        weight_drop: float = 0.0,
        word_dropout: float = 0.0,
        sampled: int = 0,
        augmented: float = 0.0,
        streams: int = 32,
    ):
        self.symbols, self.streams, self.sampled = symbols, streams, sampled
        self.options: dict[str, Any] = {
            "embedding": embedding, "hidden": hidden, "layers": layers, "dropout": dropout,
            "spread": spread, "tied": tied, "variational": variational, "weight_drop": weight_drop,
            "word_dropout": word_dropout, "sampled": sampled, "augmented": augmented,
        }  # fmt: skip
        if augmented and not (sampled and tied):
            raise OptionError(
                "LanguageModel: augmented compares the vectors of drawn symbols: expected sampled "
                f"and tied with it, got sampled={sampled}, tied={tied}"
            )
        kind = nn.SpatialDropout if variational else nn.Dropout
        self.vectors = nn.Embedding(
            symbols, embedding, weight_init=nn.init.get("normal", std=spread), dropout=word_dropout
        )
        self.before = kind(dropout)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(
            embedding, hidden, layers, dropout=between, stateful=streams, forget_bias=1.0,
            weight_drop=weight_drop, variational=variational and between > 0,
        )  # fmt: skip
        self.after = kind(dropout)
        self.narrow = nn.Linear(hidden, embedding) if tied and hidden != embedding else None
        self.logits = nn.Linear(embedding if tied else hidden, symbols)
        if tied:
            self.logits.weight = self.vectors.weight
        if sampled:
            self.softmax = nn.SampledSoftmax(self.logits.in_features, symbols, sampled, augmented)
            self.softmax.weight = self.logits.weight
            assert self.logits.bias is not None
            self.softmax.bias = self.logits.bias

    def states(self, ids: Value) -> Value:
        """What the logits are made of, shape (streams, steps, size)."""
        outputs, _ = self.lstm(self.before(self.vectors(ids)))
        return outputs if self.narrow is None else self.narrow(outputs)

    def forward(self, ids: Value, following: Value | None = None) -> Value:
        seen = self.after(self.states(ids))
        result: Value = self.logits(seen) if following is None else self.softmax(seen, following)
        return result

    def with_streams(self, streams: int, **changed: Any) -> LanguageModel:
        """A copy for another number of streams, with its own memory.

        `changed` are options that it has otherwise, those of dropout.
        """
        other = LanguageModel(self.symbols, streams=streams, **{**self.options, **changed})
        other.store(self.store().dtype).device = self.store().device
        mine = self.named_parameters()
        for name, parameter in other.named_parameters().items():
            parameter.value = np.array(mine[name])
        return other

    def reader(self, precision: str = "highest") -> _Reader:
        """What reads one text symbol by symbol, at a precision of products. While it is used, the
        parameters stay as they are."""
        return _Reader(self, precision)


def make_model(
    vocabulary: Vocabulary, unit: str, *, transformer: bool, heads: int, context: int,
    **options: Any,
) -> LanguageModel | TransformerModel:  # fmt: skip
    """An LSTM or a Transformer, of the options of `LanguageModel`, whose checkpoints tell these
    symbols from others. `unit` is "character" or "word".

    Raises OptionError for options that a Transformer has no use for.
    """
    made: LanguageModel | TransformerModel
    if not transformer:
        made = LanguageModel(len(vocabulary), **options)
        description.mark(made, described(made, vocabulary, unit))
        return made
    for name in ("variational", "weight_drop", "word_dropout", "sampled", "augmented"):
        if options.get(name):
            raise OptionError(
                f"{name}: expected with an LSTM only, got {options[name]} for a Transformer; leave "
                "it out"
            )
    kept = {name: options[name] for name in ("hidden", "layers", "dropout", "tied", "streams")}
    made = TransformerModel(len(vocabulary), heads=heads, context=context, **kept)
    description.mark(made, described(made, vocabulary, unit))
    return made


class _Reader:
    """Reads one text symbol by symbol: `feed` gives the logits of the next one."""

    def __init__(self, model: LanguageModel, precision: str):
        self.predict = model.predictor() if precision == "highest" else fixed(model)
        self.precision = precision
        reset_states(model)

    def feed(self, symbol: int) -> NDArray[Any]:
        symbols = np.array([[symbol]], np.int64)
        logits: NDArray[Any] = self.predict(symbols, precision=self.precision)[0, 0]
        return logits


def train_language_model(
    model: LanguageModel | TransformerModel,
    train: NDArray[np.int64],
    valid: NDArray[np.int64],
    *,
    steps: int = 64,
    epochs: int = 8,
    lr: float = 3e-3,
    clip: float = 1.0,
    precision: str = "highest",
    measure: tuple[str, Callable[[float], float]] = ("perplexity", math.exp),
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History]:
    """Train with Adam; the learning rate falls to 0 in a straight line. A Transformer's rises in
    the first twentieth of the steps, and its sequences come in another order in each epoch.

    Args:
        model: the model; its number of streams is the batch size.
        train, valid: ids of the two texts.
        steps: the length of a sequence in a mini-batch, which is how far gradients go back.
        epochs, seed, device, workers, resume, verbose: see `Trainer`.
        lr: the highest learning rate.
        clip: limit of the norm of all gradients together.
        precision: of products, see `Trainer`; "bf16" takes half of the time or less on a CPU with a
            tile unit.
        measure: a name, and a function that computes it from the mean loss (in nats); it goes into
            the history.

    Returns the trainer and the history. The measure of the validation text in it leaves out the
    text's end, which does not fill a mini-batch; for the exact one see `mean_loss`.

    Raises DataError for texts that are too short for one mini-batch.
    """
    batch = model.streams
    for what, ids in (("training", train), ("validation", valid)):
        if len(ids) <= batch * steps:
            raise DataError(
                f"the {what} text: expected more than {batch * steps} symbols, {batch} streams of "
                f"{steps} steps, got {len(ids)}; take a longer text, or a smaller batch_size or "
                "steps"
            )
    x, y = (a.reshape(-1, steps) for a in batchify(train, batch, steps))
    x_valid, y_valid = (a.reshape(-1, steps) for a in batchify(valid, batch, steps))
    apart = isinstance(model, TransformerModel)  # sequences that know nothing of those before
    count = len(x) // batch * epochs
    schedule: Any = Polynomial(duration=count)
    if apart:
        schedule = Trapezoid(count, warmup=count // 20, cooldown=count - count // 20)
    name, of = measure
    loss: Any = nn.CrossEntropyLoss()
    given: tuple[Any, Any] = (x, y)
    given_valid: tuple[Any, Any] = (x_valid, y_valid)
    if isinstance(model, LanguageModel) and model.sampled:
        loss, given, given_valid = _mean, ((x, y), y), ((x_valid, y_valid), y_valid)
    return training.train(
        model, loss, *given, schedule=schedule, lr=lr, clip=clip,
        measure=lambda logs: {name: of(logs["loss"]), f"val_{name}": of(logs["val_loss"])},
        validation=given_valid, batch_size=batch, shuffle=apart, epochs=epochs,
        callbacks=[ResetStates(), *callbacks], seed=seed, device=device, workers=workers,
        precision=precision, resume=resume, verbose=verbose,
    )  # fmt: skip


def _mean(losses: Value, _: Any) -> Value:
    return ops.mean(losses)


def mean_loss(
    model: LanguageModel | TransformerModel,
    ids: NDArray[np.int64],
    steps: int = 64,
    workers: int | str = "auto",
) -> float:
    """Mean negative log-likelihood of a text's symbols, in nats; each but the first counts once.

    Each stream of the model begins with an empty state, so the figure is a little higher with many
    streams than with one. A Transformer reads sequences of its context, each beginning half a
    context after the one before, whose second halves count; `steps` is for the others.
    """
    batch = model.streams
    if isinstance(model, TransformerModel):
        steps = model.context
        x, y = overlapping(ids, batch, steps)
    else:
        x, y = batchify(ids, batch, steps, ignore=IGNORED)
    loss = nn.CrossEntropyLoss(ignore_index=IGNORED)
    store = model.store()
    trainer = Trainer(
        model, loss, optim.SGD(lr=0.0), workers=workers, dtype=store.dtype, device=store.device
    )
    reset_states(model)
    found = trainer.evaluate(x.reshape(-1, steps), y.reshape(-1, steps), batch_size=batch)
    reset_states(model)
    return found["loss"]


def overlapping(
    ids: NDArray[np.int64], batch: int, context: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences that overlap, in full batches: each symbol but the first counts once."""
    stride = max(1, context // 2)
    pairs = len(ids) - 1
    if pairs < 1:
        raise DataError(f"mean_loss: expected at least 2 symbols, got {len(ids)}")
    begins = [0, *range(stride, max(pairs - context + stride, stride), stride)]
    count = -(-len(begins) // batch) * batch
    x = np.zeros((count, context), np.int64)
    y = np.full((count, context), IGNORED, np.int64)
    for row, begin in enumerate(begins):
        size = min(context, pairs - begin)
        first = 0 if row == 0 else context - stride
        x[row, :size] = ids[begin : begin + size]
        y[row, first:size] = ids[begin + first + 1 : begin + size + 1]
    return x, y


# -------------------------------------------------------------------- beside a checkpoint


def save_description(model: nn.Module, vocabulary: Vocabulary, checkpoint: Path, unit: str) -> Path:
    """Write what is needed to make the model again, and its symbols, as JSON beside a checkpoint.

    `unit` is "character" or "word". Returns the file's path.
    """
    if not isinstance(model, (LanguageModel, TransformerModel)):
        raise OptionError(f"expected a LanguageModel, got {type(model).__name__}")
    return description.write(checkpoint, described(model, vocabulary, unit), model)


def described(
    model: LanguageModel | TransformerModel, vocabulary: Vocabulary, unit: str
) -> dict[str, Any]:
    """What `save_description` writes."""
    return {
        "transformer": isinstance(model, TransformerModel),
        "unit": unit,
        "streams": model.streams,
        "options": model.options,
        "symbols": list(vocabulary),
        "unknown": vocabulary.unknown,
    }


def load_language_model(
    path: str | os.PathLike[str],
) -> tuple[LanguageModel | TransformerModel, Vocabulary, str]:
    """A trained model, for one stream, its symbols, and what they are ("character" or "word").

    Args:
        path: a checkpoint with its description beside it (`model.json` for `model.safetensors`),
            or the folder that `fastnn train char-lm` wrote.

    Raises DataError where there is no description, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "language") as (checkpoint, state):
        if not files.strings(state["symbols"]):
            raise ValueError("symbols are not strings")
        files.check_options({**state["options"], "streams": state["streams"]})
        vocabulary = Vocabulary(state["symbols"], unknown=state["unknown"])
        kind = TransformerModel if state.get("transformer") else LanguageModel
        model = kind(len(vocabulary), streams=state["streams"], **state["options"])
        unit = str(state["unit"])
    model.load(checkpoint)
    return model.with_streams(1), vocabulary, unit

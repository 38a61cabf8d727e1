"""The transducer: an encoder, a net that has read the labels so far, and what joins them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_whole, is_whole, where
from fastnn.graph.value import Value
from fastnn.nn.cells import LSTMCell
from fastnn.nn.ctc import _pair
from fastnn.nn.linear import Embedding, Linear
from fastnn.nn.loss_base import Loss
from fastnn.nn.module import Module
from fastnn.nn.regularization import Dropout
from fastnn.ops.beam import WIDEST
from fastnn.public import publish


class Transducer(Module):
    """A recurrent neural network transducer (Graves 2012, "Sequence transduction with recurrent
    neural networks"): unlike with `CTCLoss`, each label depends on those before it, and a frame may
    have several::

        g_u = LSTM(embedding of label u, g_(u-1)),  logits_(t,u) = V tanh(W h_t + U g_u + b)

    where h_t is the encoder's output. A blank goes on to the next frame. Before the first label the
    prediction network reads the blank.

    Args:
        encoder: a module of (frames, lengths) that returns outputs (batch, steps, E), alone or as
            the first of several (as `nn.LSTM` does).
        encoded_size: E.
        symbols: V, classes with the blank.
        embedding: size of a label's vector.
        hidden: units of the prediction network.
        joint: units in which frames and labels meet.
        dropout: of the labels' vectors, of the prediction network's and of the encoder's output.
        blank: the class that goes on to the next frame.

    Shapes: frames (batch, steps, ...), labels (batch, most labels), padded with the blank,
    `lengths` of the frames (batch,) or None; returns logits (batch, steps, most labels + 1, V), and
    the lengths where they are given. The loss is `TransducerLoss`.

    Raises OptionError for sizes below 1, an encoder that is no module and a `blank` that is no
    class; ShapeError for labels that are not integers of shape (batch, most labels).

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> class Encoder(fnn.nn.Module):
    ...     def __init__(self):
    ...         self.lstm = fnn.nn.LSTM(4, 8, bidirectional=True)
    ...     def forward(self, frames, lengths=None):
    ...         return self.lstm(frames, lengths=lengths)[0]
    >>> model = fnn.nn.Transducer(Encoder(), 16, symbols=3, embedding=4, hidden=8, joint=8)
    >>> trainer = fnn.Trainer(model, fnn.nn.TransducerLoss(), "adam")
    >>> x, lengths = np.ones((2, 6, 4), np.float32), np.array([6, 4])
    >>> labels, counts = np.array([[1, 2, 2], [2, 0, 0]]), np.array([3, 1])
    >>> history = trainer.fit((x, labels, lengths), (labels, counts), epochs=1, verbose=False)
    >>> decoder = fnn.nn.TransducerDecoder(model, ["", "a", "b"], beam=4)
    >>> len(decoder.text(x, lengths))
    2
    """

    def __init__(
        self, encoder: Module, encoded_size: int, symbols: int, *, embedding: int = 32,
        hidden: int = 128, joint: int = 128, dropout: float = 0.0, blank: int = 0,
    ):  # fmt: skip
        check_whole(
            "Transducer", 1, encoded_size=encoded_size, symbols=symbols, embedding=embedding,
            hidden=hidden, joint=joint,
        )  # fmt: skip
        if not isinstance(encoder, Module):
            raise OptionError(f"Transducer: expected a module as the encoder, got {encoder!r}")
        if not is_whole(blank, 0) or blank >= symbols:
            raise OptionError(
                f"Transducer: expected blank to be one of {symbols} classes, got {blank!r}"
            )
        self.encoded_size, self.symbols, self.blank = encoded_size, symbols, int(blank)
        self.hidden = hidden
        self.encoder = encoder
        self.vectors = Embedding(symbols, embedding)
        self.cell = LSTMCell(embedding, hidden)
        self.of_frames = Linear(encoded_size, joint)
        self.of_labels = Linear(hidden, joint, bias=False)
        self.out = Linear(joint, symbols)
        self.before, self.after, self.heard = (Dropout(dropout) for _ in range(3))

    def forward(self, frames: Value, labels: Value, lengths: Value | None = None) -> Any:
        if labels.ndim != 2 or labels.dtype != "i" or labels.shape[0] != frames.shape[0]:
            raise ShapeError(
                f"{where(frames.graph.scope)}{self!r}: expected labels as integers of shape "
                f"({frames.shape[0]}, most labels), got {labels.shape} of type {labels.dtype!r}"
            )
        h, g = self.encode(frames, lengths), self.of_labels(self.after(self._predicted(labels)))
        batch, steps, joint = h.shape
        both = ops.tanh(
            ops.reshape(h, (batch, steps, 1, joint))
            + ops.reshape(g, (batch, 1, labels.shape[1] + 1, joint))
        )
        logits = self.out(both)
        return logits if lengths is None else (logits, lengths)

    def encode(self, frames: Value, lengths: Value | None = None) -> Value:
        """What the joiner is given of each frame, shape (batch, steps, joint).

        Raises ShapeError for an encoder that returns another shape than (batch, steps,
        encoded_size).
        """
        found = self.encoder(frames) if lengths is None else self.encoder(frames, lengths)
        found = found[0] if isinstance(found, (tuple, list)) else found
        if found.ndim != 3 or found.shape[2] != self.encoded_size:
            raise ShapeError(
                f"{where(frames.graph.scope)}{self!r}: expected the encoder to return (batch, "
                f"steps, {self.encoded_size}), got {found.shape}; set encoded_size"
            )
        projected: Value = self.of_frames(self.heard(found))
        return projected

    def _predicted(self, labels: Value) -> Value:
        """The prediction network's outputs, (batch, most labels + 1, hidden)."""
        batch, graph = labels.shape[0], labels.graph
        row = ops.as_value(graph, self.vectors.weight)[self.blank : self.blank + 1]
        first = ops.multiply(graph.full((batch, 1), 1.0, batched=True), row)
        first = ops.reshape(first, (batch, 1, first.shape[1]))
        vectors = self.before(ops.concatenate(first, self.vectors(labels), axis=1))
        cell, zeros = self.cell, graph.full((batch, self.hidden), 0.0, batched=True)
        y: Value
        y, *_ = ops.lstm(
            vectors, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, zeros, zeros
        )
        return y

    def search(
        self, frames: Value, lengths: Value | None = None, *, labels: int, width: int = 4,
        n_best: int = 1,
    ) -> tuple[Value, Value, Value]:  # fmt: skip
        """The likeliest labels, `labels` at most: the `n_best` of a beam of `width` for each
        sequence of `frames`. See `ops.transducer_search`."""

        def predict(symbols: Value, states: tuple[Value, ...]) -> Any:
            h, c = self.cell(self.vectors(symbols), states)
            return self.of_labels(h), (h, c)

        def join(h: Value, g: Value) -> Value:
            logits: Value = self.out(ops.tanh(h + g))
            return logits

        encoded = self.encode(frames, lengths)
        zeros = ops.zeros_state(encoded, self.hidden)
        return ops.transducer_search(
            encoded, predict, join, (zeros, zeros), lengths=lengths, blank=self.blank,
            labels=labels, width=width, n_best=n_best,
        )  # fmt: skip

    def extra(self) -> str:
        return f"{self.symbols}"


class TransducerLoss(Loss):
    """The loss of a `Transducer` (Graves 2012): -log of the sum over all ways to write the labels
    between the frames. The softmax is part of it.

    Args:
        blank: the class that goes on to the next frame.
        reduction: "mean" (each loss is divided by the number of its labels, or 1, and then the mean
            taken over sequences, as of `CTCLoss`), "sum" or "none".

    Shapes: output (batch, steps, most labels + 1, classes), or a tuple of it and the numbers of
    frames, integers (batch,). Target: labels (batch, most labels), padded with -1, or a tuple of
    labels, padded with anything, and their numbers (batch,).

    Raises:
        OptionError, ShapeError: arguments, output or target do not fit. DataError, when data come
            in: lengths beyond the data, labels that are no class or the blank.

    >>> from fastnn import nn, testing
    >>> logits = np.zeros((1, 2, 2, 3))  # 2 frames, 1 label, 3 classes: 2 ways of 3 symbols each
    >>> loss = testing.apply(nn.TransducerLoss(), logits, np.array([[1]]))
    >>> bool(np.isclose(loss, -np.log(2 / 3**3)))
    True
    """

    takes_several = True

    def __init__(self, blank: int = 0, reduction: str = "mean"):
        super().__init__(reduction)
        if not is_whole(blank, 0):
            raise OptionError(
                f"TransducerLoss: expected blank to be a class, 0 or more, got {blank!r}"
            )
        self.blank = int(blank)

    def check(self, output: Any, target: Any) -> None:
        _pair(output, "output", "logits and their lengths", "TransducerLoss")
        _pair(target, "target", "labels and their numbers", "TransducerLoss")

    def rows(self, output: Any, target: Any) -> Value:
        x, lengths = _pair(output, "output", "logits and their lengths", "TransducerLoss")
        labels, counts = _pair(target, "target", "labels and their numbers", "TransducerLoss")
        return ops.transducer_loss(
            x, labels, lengths, counts, blank=self.blank, by_labels=self.reduction == "mean"
        )

    def extra(self) -> str:
        return f"blank={self.blank}"


class TransducerDecoder(Module):
    """Reads frames with a `Transducer`, by beam search, or greedily.

    Args:
        model: the transducer.
        symbols: what each class stands for, the blank's included (anything, it is not looked at).
        beam: hypotheses that are kept, at most 10,000; 1 takes the likeliest symbol in each step.
        best: how many readings are returned, at most `beam`.
        labels: how many labels a sequence has at most; None: as many as there are frames.

    Inputs: frames and their numbers (batch,), or none; outputs: see `ops.transducer_search`. `text`
    gives strings.

    Raises OptionError for a model that is no transducer, for another number of symbols than it has
    classes, for sizes out of range, and for `best` above `beam`.

    >>> from fastnn import nn
    >>> model = nn.Transducer(nn.Linear(3, 8), 8, symbols=3, hidden=4, joint=4)
    >>> decoder = nn.TransducerDecoder(model, ["", "a", "b"], beam=4)
    >>> len(decoder.text(np.zeros((2, 5, 3), np.float32)))  # of a net that is not trained
    2
    """

    def __init__(
        self, model: Transducer, symbols: Sequence[str], beam: int = 8, *, best: int = 1,
        labels: int | None = None,
    ):  # fmt: skip
        check_whole("TransducerDecoder", 1, WIDEST, beam=beam)
        check_whole("TransducerDecoder", 1, best=best)
        if labels is not None:
            check_whole("TransducerDecoder", 1, labels=labels)
        if not isinstance(model, Transducer):
            raise OptionError(f"TransducerDecoder: expected an nn.Transducer, got {model!r}")
        symbols = list(symbols) if isinstance(symbols, Sequence) else [symbols]
        if len(symbols) != model.symbols or not all(isinstance(s, str) for s in symbols):
            raise OptionError(
                f"TransducerDecoder: expected a text for each of {model.symbols} classes, got "
                f"{symbols!r}"
            )
        if best > beam:
            raise OptionError(
                f"TransducerDecoder: expected best to be at most beam={beam}, got {best}"
            )
        self.model, self.symbols, self.beam, self.best = model, symbols, beam, best
        self.labels = labels

    def forward(self, frames: Value, lengths: Value | None = None) -> tuple[Value, ...]:
        most = frames.shape[1] if self.labels is None else self.labels
        return self.model.search(frames, lengths, labels=most, width=self.beam, n_best=self.best)

    def text(self, frames: Any, lengths: Any = None) -> list[str]:
        """The best reading of each sequence.

        Args:
            frames: shape (batch, steps, ...). lengths: (batch,), or None for all steps.
        """
        given = (frames,) if lengths is None else (frames, lengths)
        labels, counts, _ = self.predict(*given)
        return [
            "".join(self.symbols[k] for k in row[0, : max(int(n[0]), 0)])
            for row, n in zip(labels, counts, strict=True)
        ]

    def extra(self) -> str:
        return f"{len(self.symbols)} symbols, beam={self.beam}"


publish(globals(), type)

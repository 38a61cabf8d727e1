"""Nets that recognise speech: with connectionist temporal classification, and transducers."""

from __future__ import annotations

from fastnn import nn
from fastnn.graph.value import Value


class SpeechModel(nn.Module):
    """Logits of characters for frames.

    Args:
        features: of a frame.
        classes: characters and the blank.
        hidden: units of each layer and direction.
        layers: LSTM layers.
        dropout: probability of zero between layers and before the logits.

    Inputs: frames (batch, steps, features) and their numbers (batch,); outputs: logits (batch,
    steps, classes) and the numbers.
    """

    def __init__(
        self, features: int, classes: int, *, hidden: int = 128, layers: int = 2,
        dropout: float = 0.35,
    ):  # fmt: skip
        self.options = {"hidden": hidden, "layers": layers, "dropout": dropout}
        self.before = nn.Dropout(0.3 * dropout)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(features, hidden, layers, bidirectional=True, dropout=between)
        self.after = nn.Dropout(dropout)
        self.logits = nn.Linear(2 * hidden, classes)

    def forward(self, frames: Value, lengths: Value) -> tuple[Value, Value]:
        outputs, _ = self.lstm(self.before(frames), lengths=lengths)
        return self.logits(self.after(outputs)), lengths


class SpeechEncoder(nn.Module):
    """The layers of `SpeechModel` without logits: frames and their numbers to outputs."""

    def __init__(self, features: int, hidden: int, layers: int, dropout: float):
        self.before = nn.Dropout(0.3 * dropout)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(features, hidden, layers, bidirectional=True, dropout=between)

    def forward(self, frames: Value, lengths: Value | None = None) -> Value:
        outputs: Value = self.lstm(self.before(frames), lengths=lengths)[0]
        return outputs


class SpeechTransducer(nn.Transducer):
    """A transducer for characters, whose encoder is that of `SpeechModel`.

    Args:
        features, classes, hidden, layers, dropout: as of `SpeechModel`.

    Inputs: frames (batch, steps, features), labels padded with the blank, numbers of frames;
    outputs: see `nn.Transducer`.
    """

    def __init__(
        self, features: int, classes: int, *, hidden: int = 128, layers: int = 2,
        dropout: float = 0.35,
    ):  # fmt: skip
        self.options = {"hidden": hidden, "layers": layers, "dropout": dropout}
        encoder = SpeechEncoder(features, hidden, layers, dropout)
        super().__init__(
            encoder, 2 * hidden, classes, embedding=32, hidden=hidden, joint=hidden, dropout=dropout
        )

"""Writing: beam search with a recurrent translator, characters of a language model."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sequences.sides import Sides, copied, state_of
from fastnn import nn
from fastnn.engine.predictor import Predictor
from fastnn.tasks.language import LanguageModel
from fastnn.tasks.sampling import sample
from fastnn.tasks.translators import RecurrentTranslator

SYMBOLS, POSITIONS, STEPS, SENTENCES, WIDTH = 8000, 18, 24, 64, 8


class Search(nn.Module):
    """The best translation of each sentence."""

    def __init__(self) -> None:
        self.net = RecurrentTranslator(SYMBOLS, dropout=0.0)

    def forward(self, ids: Any, lengths: Any) -> Any:
        return self.net.write(ids, lengths, steps=STEPS, width=WIDTH)


def beam_search(threads: int, precision: str) -> Sides:
    """64 sentences at once, 24 symbols each: a new net hardly ever ends a sentence.

    PyTorch's side does what fastnn's does: the encoder and its keys are computed once and seen from
    all hypotheses where they lie, hypotheses of all sentences make a step together, one topk over
    the continuations of a sentence chooses, and states are gathered. Of near ties
    either side may keep another one, so scores agree to 1e-3.
    """
    import torch

    random = np.random.default_rng(0)
    lengths = random.integers(10, POSITIONS + 1, SENTENCES)
    ids = random.integers(2, SYMBOLS, (SENTENCES, POSITIONS))
    model = Search()
    model.store()
    predict = Predictor(model, threads)
    s = {name: p.detach() for name, p in state_of(model).items()}
    s = {name.removeprefix("net."): p for name, p in s.items()}
    encoder = copied(torch.nn.GRU(256, 256, bidirectional=True, batch_first=True), s, "encoder.")
    f, d, stop = torch.nn.functional, "decoder.", 1
    ti, tl = torch.from_numpy(ids), torch.from_numpy(lengths)
    hidden = (torch.arange(POSITIONS) >= tl[:, None])[:, None]
    base = torch.arange(SENTENCES)[:, None] * WIDTH
    frozen = torch.full((SYMBOLS,), -torch.inf)
    frozen[stop] = 0.0

    @torch.inference_mode()
    def theirs() -> Any:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            f.embedding(ti, s["vectors.weight"]), tl, True, enforce_sorted=False
        )
        encoded, _ = torch.nn.utils.rnn.pad_packed_sequence(
            encoder(packed)[0], True, total_length=POSITIONS
        )
        keys = f.linear(encoded, s[d + "attention.key.weight"])[:, None]
        h = torch.tanh(f.linear(encoded.sum(1) / tl[:, None], s[d + "initial.weight"],
                                s[d + "initial.bias"])).repeat_interleave(WIDTH, 0)  # fmt: skip
        symbols = torch.zeros(SENTENCES * WIDTH, dtype=torch.int64)
        score = torch.full((SENTENCES, WIDTH), -torch.inf)
        score[:, 0] = 0.0
        ended = torch.zeros(SENTENCES, WIDTH, dtype=torch.bool)
        history = torch.full((SENTENCES, WIDTH, STEPS), stop)
        for t in range(STEPS):
            x = f.embedding(symbols, s[d + "vectors.weight"])
            query = f.linear(h, s[d + "attention.query.weight"], s[d + "attention.query.bias"])
            query = query.view(SENTENCES, WIDTH, 1, -1)
            scores = torch.tanh(keys + query) @ s[d + "attention.score"]
            weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), 2)
            context = (weights @ encoded).flatten(0, 1)
            h = torch.gru_cell(
                torch.cat([x, context], 1), h, s[d + "cell.weight_ih"], s[d + "cell.weight_hh"],
                s[d + "cell.bias_ih"], s[d + "cell.bias_hh"],
            )  # fmt: skip
            both = torch.tanh(
                f.linear(torch.cat([h, context], 1), s[d + "both.weight"], s[d + "both.bias"])
            )
            logs = torch.log_softmax(f.linear(both, s[d + "out.weight"], s[d + "out.bias"]), 1)
            logs = logs.view(SENTENCES, WIDTH, SYMBOLS)
            if bool(ended.any()):
                logs = torch.where(ended[:, :, None], frozen, logs)
            score, place = (score[:, :, None] + logs).flatten(1).topk(WIDTH, 1)
            parent, symbol = place // SYMBOLS, place % SYMBOLS
            history = history.gather(1, parent[:, :, None].expand_as(history))
            history[:, :, t] = symbol
            ended = ended.gather(1, parent) | (symbol == stop)
            if bool(ended.all()):
                break
            h, symbols = h[(base + parent).flatten()], symbol.flatten()
        return score[:, 0]

    return Sides(
        {
            "fastnn": lambda: predict(ids, lengths, precision=precision)[2][:, 0],
            "PyTorch": theirs,
        },
        close=1e-3 if precision == "highest" else 0.05, count=SENTENCES,
    )  # fmt: skip


def characters(threads: int, precision: str, length: int = 300) -> Sides:
    """One stream, the likeliest symbol after each, state kept on both sides."""
    import torch

    model = LanguageModel(65, embedding=64, hidden=256, layers=2, dropout=0.0, streams=1)
    model.store()
    state = state_of(model)
    vectors, logits = torch.nn.Embedding(65, 64), torch.nn.Linear(256, 65)
    lstm = torch.nn.LSTM(64, 256, 2)
    for module, prefix in ((vectors, "vectors."), (logits, "logits."), (lstm, "lstm.")):
        copied(module, state, prefix)

    @torch.inference_mode()
    def theirs() -> Any:
        kept, symbol, drawn = None, torch.zeros(1, dtype=torch.int64), []
        for k in range(length + 1):
            y, kept = lstm(vectors(symbol)[:, None], kept)
            if k < length:
                symbol = logits(y[0, 0]).argmax(0, keepdim=True)
                drawn.append(int(symbol))
        return drawn

    return Sides(
        {
            "fastnn": lambda: sample(model, [0], length, temperature=0.0, precision=precision),
            "PyTorch": theirs,
        },
        # at a lower precision another symbol may be the likeliest, and all that follow are others
        close=1e-4 if precision == "highest" else 100.0, count=length,
    )  # fmt: skip

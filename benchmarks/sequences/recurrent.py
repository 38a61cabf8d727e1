"""Training steps of recurrent nets: a recogniser of speech, a translator with attention."""

from __future__ import annotations

import os

import numpy as np

import fastnn as fnn
from benchmarks.sequences import xla_recurrent
from benchmarks.sequences.sides import Sides, copied, state_of
from fastnn import nn, optim
from fastnn.tasks.speech_models import SpeechModel
from fastnn.tasks.translators import RecurrentTranslator

CLASSES, BATCH = 29, 16
SYMBOLS, POSITIONS, STEPS, SENTENCES = 8000, 18, 17, 64


def utterances() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """16 utterances of AN4, as `fastnn train asr` reads them, in the order of its list: frames,
    their numbers, labels, their numbers. Without FASTNN_DATA drawn ones of similar lengths."""
    random = np.random.default_rng(0)
    if os.environ.get("FASTNN_DATA"):
        from fastnn.data.transcribed import load_an4
        from fastnn.tasks.asr import Front

        front, (train, _) = Front(), load_an4()
        rows = [front.joined(front.of_cepstra(c)) for c in train.recordings[:BATCH]]
        counts = np.array([len(text) for text in train.texts[:BATCH]])
    else:
        rows = [random.standard_normal((n, 117)).astype(np.float32)
                for n in random.integers(30, 150, BATCH)]  # fmt: skip
        counts = random.integers(3, 14, BATCH)
    lengths = np.array([len(row) for row in rows])
    x = np.zeros((BATCH, lengths.max(), rows[0].shape[1]), np.float32)
    for one, row in zip(x, rows, strict=True):
        one[: len(row)] = row
    labels = random.integers(1, CLASSES, (BATCH, counts.max()))
    return x, lengths, labels, counts


def recognise(threads: int, precision: str) -> Sides:
    """Two bidirectional LSTM layers of 128 with connectionist temporal classification and Adam.

    PyTorch packs the sequences. Without that it is quicker, but its backward direction then begins
    in the padding, so its losses are others and are not compared.
    """
    import torch

    x, lengths, labels, counts = utterances()
    targets = np.where(np.arange(labels.shape[1]) < counts[:, None], labels, -1)
    frames, features = x.shape[1:]
    model = SpeechModel(features, CLASSES, dropout=0.0)
    step = fnn.compile(model, nn.CTCLoss(), optim.Adam(lr=1e-3), workers=threads,
                       precision=precision)  # fmt: skip
    model.store()
    state = state_of(model)
    theirs = torch.nn.LSTM(features, 128, 2, bidirectional=True, batch_first=True)
    copied(theirs, state, "lstm.")
    out = copied(torch.nn.Linear(256, CLASSES), state, "logits.")
    adam = torch.optim.Adam([*theirs.parameters(), *out.parameters()], lr=1e-3)
    tx, tl, tc = (torch.from_numpy(a) for a in (x, lengths, counts))
    flat = torch.from_numpy(np.concatenate([r[:n] for r, n in zip(targets, counts, strict=True)]))
    loss = torch.nn.CTCLoss()

    def their_step(padded: bool) -> float:
        if padded:
            outputs = theirs(tx)[0]
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(tx, tl, True, enforce_sorted=False)
            outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
                theirs(packed)[0], True, total_length=frames
            )
        logs = torch.log_softmax(out(outputs), 2).transpose(0, 1)
        value = loss(logs, flat, tl, tc)
        adam.zero_grad()
        value.backward()
        adam.step()
        return float(value.detach())

    return Sides(
        {
            "fastnn": lambda: float(step((x, lengths), targets)),
            "PyTorch": lambda: their_step(False),
            "PyTorch, padded": lambda: their_step(True),
            "JAX": xla_recurrent.recognise(model.state_dict(), x, lengths, labels, counts),
        },
        close=1e-4 if precision == "highest" else 0.05,
        others=("PyTorch, padded",),
    )


def translate(threads: int, precision: str) -> Sides:
    """An encoder of GRUs in both directions and a decoder of GRUs with additive attention, 256
    units each, with Multi30k's lengths, no dropout; Adam."""
    import torch

    random = np.random.default_rng(0)
    lengths = random.integers(10, POSITIONS + 1, SENTENCES)
    ids = random.integers(2, SYMBOLS, (SENTENCES, POSITIONS))
    targets = random.integers(2, SYMBOLS, (SENTENCES, STEPS))
    ends = random.integers(10, STEPS + 1, SENTENCES)
    wanted = np.where(np.arange(STEPS) < ends[:, None], targets, -100)
    model = RecurrentTranslator(SYMBOLS, dropout=0.0)
    step = fnn.compile(model, nn.CrossEntropyLoss(ignore_index=-100), optim.Adam(lr=1e-3),
                       workers=threads, precision=precision)  # fmt: skip
    model.store()
    s = state_of(model)
    encoder = copied(torch.nn.GRU(256, 256, bidirectional=True, batch_first=True), s, "encoder.")
    adam = torch.optim.Adam([*encoder.parameters(), *s.values()], lr=1e-3)
    ti, tl, tt = (torch.from_numpy(a) for a in (ids, lengths, targets))
    tw = torch.from_numpy(wanted)
    mask = torch.arange(POSITIONS) < tl[:, None]
    d, f = "decoder.", torch.nn.functional

    def their_step() -> float:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            f.embedding(ti, s["vectors.weight"]), tl, True, enforce_sorted=False
        )
        encoded, _ = torch.nn.utils.rnn.pad_packed_sequence(
            encoder(packed)[0], True, total_length=POSITIONS
        )
        keys = f.linear(encoded, s[d + "attention.key.weight"])
        h = torch.tanh(f.linear(encoded.sum(1) / tl[:, None], s[d + "initial.weight"],
                                s[d + "initial.bias"]))  # fmt: skip
        before = torch.cat([torch.zeros_like(tt[:, :1]), tt[:, :-1]], 1)
        vectors = f.embedding(before, s[d + "vectors.weight"])
        seen = []
        for t in range(STEPS):
            query = f.linear(h, s[d + "attention.query.weight"], s[d + "attention.query.bias"])
            scores = torch.tanh(keys + query[:, None]) @ s[d + "attention.score"]
            weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), 1)
            context = (weights[:, None] @ encoded)[:, 0]
            h = torch.gru_cell(
                torch.cat([vectors[:, t], context], 1), h, s[d + "cell.weight_ih"],
                s[d + "cell.weight_hh"], s[d + "cell.bias_ih"], s[d + "cell.bias_hh"],
            )  # fmt: skip
            seen.append(torch.cat([h, context], 1))
        both = torch.tanh(f.linear(torch.stack(seen, 1), s[d + "both.weight"], s[d + "both.bias"]))
        logits = f.linear(both, s[d + "out.weight"], s[d + "out.bias"])
        value = f.cross_entropy(logits.flatten(0, 1), tw.flatten(), ignore_index=-100)
        adam.zero_grad()
        value.backward()
        adam.step()
        return float(value.detach())

    return Sides(
        {
            "fastnn": lambda: float(step((ids, lengths, targets), wanted)),
            "PyTorch": their_step,
            "JAX": xla_recurrent.translate(model.state_dict(), ids, lengths, targets, wanted),
        },
        close=1e-4 if precision == "highest" else 0.05,
    )

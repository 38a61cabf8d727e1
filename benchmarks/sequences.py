"""Training steps of nets that turn sequences into sequences, side by side with PyTorch.

    python -m benchmarks.sequences recognise|translate [--threads 1] [--rounds 5] [--precision P]

`recognise`: two bidirectional LSTM layers of 128 with connectionist temporal classification, 39
features, 29 symbols, batches of 16 with lengths between a third and the whole of 120 frames.
PyTorch packs the sequences; with `--padded` it does not, which is quicker there, but its backward
direction then begins in the padding, so its losses differ and are not compared. `translate`: an
encoder of GRUs in both directions and a decoder of GRUs with additive attention, 256 units each,
8,000 symbols, batches of 64 with Multi30k's lengths (up to 18 pieces for 14 on average). Adam, no
dropout; from equal parameters the losses of three steps are compared first. PyTorch's side is
eager, with its own GRU, LSTM and losses. The figures are processor time over the threads, by the
fastest of the rounds, sides alternating.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.tasks.speech_models import SpeechModel
from fastnn.tasks.translators import RecurrentTranslator

FEATURES, CLASSES, FRAMES, LABELS, BATCH = 39, 29, 120, 20, 16
SYMBOLS, POSITIONS, STEPS, SENTENCES = 8000, 18, 17, 64
Step = Callable[[], float]


def state_of(model: Any) -> dict[str, Any]:
    """A model's parameters as PyTorch's leaves."""
    import torch

    return {
        name: torch.from_numpy(np.array(value)).requires_grad_()
        for name, value in model.state_dict().items()
    }


def recognise(precision: str, workers: int, padded: bool = False) -> tuple[Step, Step]:
    """A step of each side: fastnn's and PyTorch's."""
    import torch

    random = np.random.default_rng(0)
    lengths = random.integers(FRAMES // 3, FRAMES + 1, BATCH)
    lengths[0] = FRAMES
    x = random.normal(size=(BATCH, FRAMES, FEATURES)).astype(np.float32)
    labels = random.integers(1, CLASSES, (BATCH, LABELS))
    counts = random.integers(3, LABELS // 2, BATCH)
    targets = np.where(np.arange(LABELS) < counts[:, None], labels, -1)
    model = SpeechModel(FEATURES, CLASSES, dropout=0.0)
    step = fnn.compile(model, nn.CTCLoss(), optim.Adam(lr=1e-3), workers=workers,
                       precision=precision)  # fmt: skip
    model.store()
    theirs = torch.nn.LSTM(FEATURES, 128, 2, bidirectional=True, batch_first=True)
    out = torch.nn.Linear(256, CLASSES)
    state = state_of(model)
    with torch.no_grad():
        for prefix, module in (("lstm.", theirs), ("logits.", out)):
            for name, parameter in module.named_parameters():
                parameter.copy_(state[prefix + name])
    adam = torch.optim.Adam([*theirs.parameters(), *out.parameters()], lr=1e-3)
    tx, tl = torch.from_numpy(x), torch.from_numpy(lengths)
    flat = torch.from_numpy(np.concatenate([r[:n] for r, n in zip(targets, counts, strict=True)]))
    tc = torch.from_numpy(counts)
    loss = torch.nn.CTCLoss()

    def their_step() -> float:
        if padded:
            outputs = theirs(tx)[0]
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(tx, tl, True, enforce_sorted=False)
            outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
                theirs(packed)[0], True, total_length=FRAMES
            )
        logs = torch.log_softmax(out(outputs), 2).transpose(0, 1)
        value = loss(logs, flat, tl, tc)
        adam.zero_grad()
        value.backward()
        adam.step()
        return float(value.detach())

    return (lambda: float(step((x, lengths), targets))), their_step


def translate(precision: str, workers: int, padded: bool = False) -> tuple[Step, Step]:
    """A step of each side: fastnn's and PyTorch's."""
    import torch

    random = np.random.default_rng(0)
    lengths = random.integers(10, POSITIONS + 1, SENTENCES)
    ids = random.integers(2, SYMBOLS, (SENTENCES, POSITIONS))
    targets = random.integers(2, SYMBOLS, (SENTENCES, STEPS))
    ends = random.integers(10, STEPS + 1, SENTENCES)
    wanted = np.where(np.arange(STEPS) < ends[:, None], targets, -100)
    model = RecurrentTranslator(SYMBOLS, dropout=0.0)
    step = fnn.compile(model, nn.CrossEntropyLoss(ignore_index=-100), optim.Adam(lr=1e-3),
                       workers=workers, precision=precision)  # fmt: skip
    model.store()
    s = state_of(model)
    encoder = torch.nn.GRU(256, 256, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(s.pop(f"encoder.{name}"))
    adam = torch.optim.Adam([*encoder.parameters(), *s.values()], lr=1e-3)
    assert not padded, "--padded is for recognise"
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

    return (lambda: float(step((ids, lengths, targets), wanted))), their_step


WORKLOADS = {"recognise": recognise, "translate": translate}


def main(arguments: list[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", default="highest")
    parser.add_argument("--padded", action="store_true")
    a = parser.parse_args(arguments)
    torch.set_num_threads(a.threads)
    sides = WORKLOADS[a.workload](a.precision, a.threads, a.padded)
    room = 1e-4 if a.precision == "highest" else 0.05
    for _ in range(3):
        ours, theirs = (side() for side in sides)
        assert a.padded or abs(ours - theirs) <= room * abs(theirs), (
            f"losses differ: {ours} and {theirs}"
        )
    found: tuple[list[float], list[float]] = [], []
    for _ in range(a.rounds):
        for side, times in zip(sides, found, strict=True):
            begin = time.process_time()
            for _ in range(a.steps):
                side()
            times.append((time.process_time() - begin) / a.steps / a.threads)
    fast, peer = (1e3 * min(times) for times in found)
    print(f"{a.workload}, {a.threads} threads, {a.precision}: fastnn {fast:.2f} ms, PyTorch "
          f"{peer:.2f} ms, ratio {peer / fast:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()

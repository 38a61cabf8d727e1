"""Recurrent nets on CUDA beside plain loops, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnn.kernels.declare import CUDA_KERNELS, Array
from fastnn.kernels.recurrent.cuda_layout import Layout, exchange_words
from fastnn.testing.kernels import call_cuda
from tests import naive_recurrent

GATES = {"rnn": 1, "lstm": 4, "gru": 3}

SAVED = {"rnn": 0, "lstm": 5, "gru": 4}

CELLS = [
    ("rnn", {"activation": 0}), ("rnn", {"activation": 1}), ("rnn", {"activation": 2}),
    ("lstm", {}), ("lstm", {"peephole": True}),
    ("gru", {"reset_before": 0}), ("gru", {"reset_before": 1}),
]  # fmt: skip

Arrays = dict[str, Any]


@dataclass
class Case:
    """Inputs of one cell; runs its kernels, whole sequences or turn by turn."""

    cell: str
    options: dict[str, Any]
    sizes: tuple[int, int, int]  # B, T, H
    dtype: Any = np.float64
    reverse: int = 0
    lengths: np.ndarray | None = None
    bptt: int = 0
    states: bool = True
    is_bf16: int = 1
    #: what is done to the numbers that recurrent weights are multiplied with
    rounded: Callable[[np.ndarray], np.ndarray] = np.asarray
    arrays: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        B, T, H = self.sizes
        G = GATES[self.cell] * H
        shapes = {"x": (B, T, 2), "w_ih": (2, G), "w_hh": (H, G), "b_ih": (G,), "b_hh": (G,)}
        shapes |= {"h0": (B, H), "c0": (B, H), "peephole": (3 * H,), "dy": (B, T, H)}
        shapes |= {"dh_n": (B, H), "dc_n": (B, H)}
        rng = np.random.default_rng(B + 100 * H)
        for name, shape in shapes.items():
            scale = 1.0 if name[0] in "xd" else 0.5 / np.sqrt(H if name == "w_hh" else 1)
            self.arrays[name] = (rng.standard_normal(shape) * scale).astype(self.dtype)
        self.options = dict(self.options)
        if not self.options.pop("peephole", False):
            self.arrays["peephole"] = None
        if not self.states:
            self.arrays |= dict.fromkeys(("h0", "c0", "dh_n", "dc_n", "b_hh"))

    @property
    def before(self) -> bool:
        return bool(self.options.get("reset_before"))

    @property
    def suffix(self) -> str:
        return "_early" if self.before else ""

    def zx(self) -> np.ndarray:
        a = self.arrays
        return (a["x"].astype(float) @ a["w_ih"] + a["b_ih"]).astype(self.dtype)

    def poisoned(self, shape: tuple[int, ...], kind: Any = None, byte: int = 0xFF) -> np.ndarray:
        kind = np.dtype(kind or self.dtype)
        size = int(np.prod(shape)) * kind.itemsize
        return np.full(size, byte, np.uint8).view(kind).reshape(shape)

    def shape_of(self, key: str, layout: Layout) -> tuple[int, ...] | None:
        B, T, H = self.sizes
        wide = 2 * H if self.before else 3 * H
        shapes: dict[str, tuple[int, ...] | None] = {
            "y": (B, T, H), "before": (B, T, H), "saved": (B, T * SAVED[self.cell] * H),
            "dz": (B, T, GATES[self.cell] * H), "dz_h": (B, T, wide),
            "dz_step": (B, GATES[self.cell] * H),
            "dpeephole": None if self.arrays["peephole"] is None else (B, 3 * H),
            "reset": (B, T, H) if self.before else None, "dn": (B, T, H) if self.before else None,
            "dz_late": (B, H) if self.before else None,
        }  # fmt: skip
        return shapes.get(key, (B, H))

    def run(self, name: str, given: Arrays, layout: Layout, byte: int = 0xFF) -> Arrays:
        """Run a kernel; what is neither given nor known is an output, poisoned."""
        kernel = CUDA_KERNELS[name]
        known = {
            **self.arrays, **self.options, "zx": self.zx(), "lengths": self.lengths,
            "reverse": self.reverse, "bptt": self.bptt, "groups": layout.groups,
            "blocks": layout.blocks, "units": layout.units, "is_bf16": self.is_bf16, **given,
        }  # fmt: skip
        operands: Arrays = {}
        for key, parameter in kernel.params.items():
            if key in known:
                operands[key] = known[key]
            else:
                assert isinstance(parameter, Array), key
                shape = self.shape_of(key, layout)
                operands[key] = None if shape is None else self.poisoned(shape, byte=byte)
        call_cuda(kernel, **operands)
        return operands

    def order(self, layout: Layout) -> Arrays:
        """The order of the sequences, and words that are as they are before the launch."""
        B, T, H = self.sizes
        order = None
        if self.lengths is not None:
            order = np.full(B, -1)
            kernel = CUDA_KERNELS["sequence_order"]
            call_cuda(kernel, lengths=self.lengths, order=order, steps=T)
        if layout.near:
            return {"order": order, "words": None}
        depth = GATES[self.cell] * H
        words = np.full(exchange_words(B, depth, 3, layout, np.dtype(self.dtype).itemsize), -1)
        call_cuda(CUDA_KERNELS["clear_words"], words=words)
        assert not words.any()
        return {"order": order, "words": words}

    def forward(self, layout: Layout, byte: int = 0xFF) -> Arrays:
        name = f"{self.cell}_{layout.how}_forward{self.suffix}"
        return self.run(name, self.order(layout), layout, byte)

    def backward(self, forward: Arrays, layout: Layout, byte: int = 0xFF) -> Arrays:
        given = self.order(layout) | {k: forward[k] for k in ("y", "saved") if k in forward}
        name = f"{self.cell}_{layout.how}_backward{self.suffix}"
        return self.run(name, given, layout, byte)

    def product(self, h: np.ndarray) -> np.ndarray:
        """h W_hh + b_hh, as `linear_forward` computes it."""
        bias = 0.0 if self.arrays["b_hh"] is None else self.arrays["b_hh"]
        return (self.rounded(h).astype(float) @ self.arrays["w_hh"] + bias).astype(self.dtype)

    def forward_by_steps(self) -> Arrays:
        layout = Layout(1, 1, 4)
        state = {}
        for name, first in (("h_n", "h0"), ("c_n", "c0")):
            state[name] = self.run("state_begin", {"given": self.arrays[first]}, layout)["state"]
        B, T, H = self.sizes
        result: Arrays = {"y": self.poisoned((B, T, H))}
        result["saved"] = self.poisoned((B, T * SAVED[self.cell] * H))
        for turn in range(T):
            given = {**result, **state, "turn": turn, "zh": self.product(state["h_n"]), "zn": None}
            if self.before:
                rh = self.run("gru_step_reset", given, layout)["rh"]
                given["zn"] = self.product(rh)
            self.run(f"{self.cell}_step_forward", given, layout)
        return {**result, **state}

    def backward_by_steps(self, forward: Arrays) -> Arrays:
        layout = Layout(1, 1, 4)
        T = self.sizes[1]
        names = ("dz", "before", "dz_step", "dh", "dc", "direct", "dpeephole", "dz_h")
        names += ("reset", "dn", "dz_late")
        shapes = {name: self.shape_of(name, layout) for name in names}
        more: Arrays = {k: None if s is None else self.poisoned(s) for k, s in shapes.items()}
        if more["dpeephole"] is not None:
            more["dpeephole"][:] = 0  # rows of sequences without steps
        more |= {k: forward[k] for k in ("y", "saved") if k in forward}
        transposed = self.arrays["w_hh"].T.astype(float)
        for turn in reversed(range(T)):
            self.run(f"{self.cell}_step_backward", {**more, "turn": turn}, layout)
            if self.before:
                drh = (self.rounded(more["dz_step"]) @ transposed).astype(self.dtype)
                given = {**more, "drh": drh, "turn": turn}
                self.run("gru_step_backward_reset", given, layout)
            more["dh"][:] = self.rounded(more["dz_step"]) @ transposed
        for name, carried, final in (("dh0", "dh", "dh_n"), ("dc0", "dc", "dc_n")):
            given = {"carried": more[carried], "final": self.arrays[final], "steps": T}
            given["direct"] = more["direct"] if self.cell == "gru" and name == "dh0" else None
            more[name] = self.run("state_begin_backward", given, layout)["gradient"]
        return more

    def steps(self) -> np.ndarray:
        return np.full(self.sizes[0], self.sizes[1]) if self.lengths is None else self.lengths

    def oracle(self, **changed: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        a = {k: v for k, v in {**self.arrays, **changed}.items() if v is not None}
        zeros = np.zeros((self.sizes[0], self.sizes[2]))
        a.setdefault("b_hh", np.zeros(GATES[self.cell] * self.sizes[2]))
        states = [a.get("h0", zeros), a.get("c0", zeros)][: 2 if self.cell == "lstm" else 1]
        cell: Any = {
            "rnn": naive_recurrent.rnn_cell(self.options.get("activation", 0)),
            "lstm": naive_recurrent.lstm_cell,
            "gru": naive_recurrent.gru_cell(self.before),
        }[self.cell]
        return naive_recurrent.sequence(cell, a["x"], a, states, self.steps(), bool(self.reverse))

"""Factors of products in 16 bits, on a GPU at precision "bf16" or "fp16".

Each product takes factors of 16 bits (`kernels/matmul/cuda_half.py`) and writes what is read of it:
16 bits for other products, float32 for the rest, or both. So an activation between two layers lies
in memory in 16 bits alone. What other kernels make is copied, once however many products take it.
Weights stay float32. Where the updates of a step write their parameters in 16 bits as well,
products take what they have written: it lies in a segment of its own, "halves", at the places of
the parameters, and whoever runs the program fills it before the first step
(`runtime/cuda/weights.py`). Elsewhere the step begins with a launch that copies all weights that
products take.

Kernels that walk whole sequences round what they multiply themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.factors import counts_of, sizes_of
from fastnn.plan.lower.lowering import Lowering

if TYPE_CHECKING:
    from fastnn.kernels.matmul.cuda_half import HalfProduct

#: weights with no more elements than these between them are copied together with what is between
BETWEEN = 4096
#: the results of products in 16 bits, and in float32
HALF_RESULTS = {"y_half": "y", "dx_half": "dx"}
#: the segment of weights in 16 bits that updates write
HALVES = "halves"
Key = tuple[Any, ...]


def in_halves(lowered: Lowering, calls: Sequence[Call], kept: Collection[Value]) -> list[Call]:
    """The calls with products of 16-bit factors; `kept` is memory that is looked at after the
    step."""
    return _Halves(lowered, calls).made(frozenset(kept))


class _Halves:
    def __init__(self, lowered: Lowering, calls: Sequence[Call]):
        from fastnn.kernels.cuda.half import LETTERS, PRODUCERS  # not on the CPU
        from fastnn.kernels.matmul.cuda_half import COPIES, PRODUCTS

        self.products, self.producers = PRODUCTS, PRODUCERS
        self.lowered, self.calls = lowered, calls
        self.letter, self.copying = LETTERS[lowered.precision], COPIES[lowered.precision]
        self.found: list[Call] = []
        self.copies: dict[Key, Value] = {}
        #: which of `found` made a value and can write it in 16 bits
        self.makers: dict[Key, int] = {}
        self.weights: list[tuple[int, int, Value]] = []  # from, to, the copy
        self.kept_by_updates = False

    def made(self, kept: Collection[Value]) -> list[Call]:
        self.kept_by_updates = self._kept_by_updates()
        self._copy_weights()
        loops: tuple[Repeat, ...] = ()
        for call in self.calls:
            if call.repeats != loops:  # a loop's first step may find what a later one may not
                self.copies, self.makers, loops = {}, {}, call.repeats
            product = self.products.get(call.kernel)
            if product is not None:
                call = self._product(call, product)
            elif self.kept_by_updates and _writes_weights(call):
                call = self._updating(call)
            written = {value.root for _, parameter, value in call.arrays() if parameter.writes}
            for known in (self.copies, self.makers):
                for key in [key for key in known if key[0] in written]:
                    del known[key]
            self.found.append(call)
            if product is not None and product.half:
                self.makers[_key(call.operands[product.result])] = len(self.found) - 1
            elif call.kernel in self.producers and self._writes_halves(call):
                self.makers[_key(call.operands[self.producers[call.kernel]])] = len(self.found) - 1
        self._drop_unread(kept)
        return self.found

    # ---------------------------------------------------------------- weights

    def _copy_weights(self) -> None:
        """Copy the weights that products take, those near each other at once."""
        uses = [
            (number, value)
            for number, call in enumerate(self.calls)
            if call.kernel in self.products
            for name in self.products[call.kernel].factors
            if _is_weight(value := call.operands[name])
        ]
        if not uses:
            self.kept_by_updates = False
            return
        last = max(number for number, _ in uses)
        if not self.kept_by_updates and any(map(_writes_weights, self.calls[:last])):
            return  # they change in between: each product takes a copy of its own
        runs: list[tuple[int, int]] = []
        for begin, end in sorted({(_begin(v), _begin(v) + v.size) for _, v in uses}):
            if runs and begin <= runs[-1][1] + BETWEEN:
                runs[-1] = runs[-1][0], max(runs[-1][1], end)
            else:
                runs.append((begin, end))
        for begin, end in runs:
            shape = (1, end - begin)
            if self.kept_by_updates:
                self.weights.append((begin, end, self._half_weights(begin, shape)))
                continue
            weights = self.lowered.graph.leaf(
                ("halves", begin, end), shape, "params", offset=begin, name="weights"
            )
            copy = self.lowered.value(
                shape, self.letter, name=f"weights in {self.lowered.precision}"
            )
            self.found.append(Call(self.copying, {"x": weights, "y": copy}, ""))
            self.weights.append((begin, end, copy))

    def _kept_by_updates(self) -> bool:
        """Whether whatever changes a weight in this step can write it in 16 bits, too."""
        changing = [call for call in self.calls if _writes_weights(call)]
        return bool(changing) and all(
            kernel_of(call.kernel).traits.halves_as and not call.repeats for call in changing
        )

    def _half_weights(self, begin: int, shape: tuple[int, ...]) -> Value:
        """Parameters in 16 bits, at their places in a segment like theirs."""
        return self.lowered.graph.leaf(
            ("half weights", begin, shape), shape, HALVES, offset=begin, dtype=self.letter,
            name=f"weights in {self.lowered.precision}",
        )  # fmt: skip

    def _updating(self, call: Call) -> Call:
        """An update that writes its parameters in 16 bits as well."""
        p = call.operands["p"]
        more = {
            "halves": self._half_weights(_begin(p), p.shape),
            "is_bf16": int(self.letter == "b"),
        }
        kernel = kernel_of(call.kernel).traits.halves_as
        return replace(call, kernel=kernel, operands={**call.operands, **more})

    def _weight(self, value: Value) -> Value | None:
        """A weight's part of the copies, where there is one."""
        for begin, end, copy in self.weights:
            if begin <= _begin(value) and _begin(value) + value.size <= end:
                return self.lowered.view(copy, value.shape, begin=_begin(value) - begin)
        return None

    # ---------------------------------------------------------------- products

    def _product(self, call: Call, product: HalfProduct) -> Call:
        from fastnn.kernels.matmul.cuda import MULTIPROCESSORS
        from fastnn.kernels.matmul.cuda_half import ABSENT, choose_shape

        halves = {n: self._half(call, call.operands[n]) for n in product.factors}
        known = {**ABSENT, **call.operands, **halves}
        suffix = ""
        if not product.batched:
            rows, columns, depth = sizes_of(call)
            limit = self.lowered.limits[1]
            suffix, parts = choose_shape(rows, columns, depth, MULTIPROCESSORS, limit)
            if parts > 1:
                suffix = "_parts"
                known["counts"] = counts_of(self.lowered)
                known["parts"] = self.lowered.value((parts, rows, columns), name="parts")
                width = 0 if known["dbias"] is None else columns
                known["bias_parts"] = self.lowered.value((parts, width), name="parts of a bias")
        kernel = kernel_of(f"{product.name}_{self.lowered.precision}{suffix}")
        return replace(call, kernel=kernel.name, operands={n: known[n] for n in kernel.params})

    def _half(self, call: Call, value: Value) -> Value:
        """A factor in 16 bits."""
        weight = self._weight(value) if _is_weight(value) else None
        if weight is not None:
            return weight
        key = _key(value)
        if key not in self.copies or value.root.segment == "params":
            copy = self.lowered.value(
                value.shape, self.letter, name=f"{self.lowered.precision} of {value.name}",
                batched=value.batched,
            )  # fmt: skip
            number = self.makers.get(key)
            if number is None:
                operands = {"x": value, "y": copy}
                self.found.append(replace(call, kernel=self.copying, operands=operands))
            else:  # the product that made it writes it so
                self.found[number] = self._writing(self.found[number], copy)
            self.copies[key] = copy
        return self.lowered.view(self.copies[key], value.shape)

    def _writes_halves(self, call: Call) -> bool:
        """Whether a call that is no product may write its result in 16 bits, too."""
        return not call.operands[self.producers[call.kernel]].strides

    def _writing(self, maker: Call, copy: Value) -> Call:
        """The call that made a value, writing it in 16 bits, too."""
        kernel = maker.kernel
        if kernel in self.producers:
            kernel = f"{kernel}_{self.lowered.precision}"
        name = next(n for n in kernel_of(kernel).params if n in HALF_RESULTS)
        known = {**maker.operands, name: copy}
        operands = {n: known[n] for n in kernel_of(kernel).params}
        return replace(maker, kernel=kernel, operands=operands)

    def _drop_unread(self, kept: Collection[Value]) -> None:
        """Leave out results in float32 that nobody reads."""
        read = {
            value.root
            for call in self.found
            for _, parameter, value in call.arrays()
            if parameter.mode != "out" or parameter.gaps
        } | set(kept)
        for number, call in enumerate(self.found):
            for half, name in HALF_RESULTS.items():
                if call.operands.get(half) is None or (
                    kernel_of(call.kernel).traits.works_in_result
                ):
                    continue
                root = call.operands[name].root
                if root.segment == "work" and root not in read and not call.repeats:
                    operands = {**call.operands, name: None}
                    self.found[number] = replace(call, operands=operands)


def _key(value: Value) -> Key:
    return (value.root, value.shift, value.size, value.shape[-1:], *value.strides.items())


def _is_weight(value: Value) -> bool:
    return value.root.segment == "params" and not value.strides


def _writes_weights(call: Call) -> bool:
    return any(p.writes and value.root.segment == "params" for _, p, value in call.arrays())


def _begin(value: Value) -> int:
    return (value.root.offset or 0) + value.shift

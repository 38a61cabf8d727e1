"""Operands whose addresses change while a program runs: in local memory, and in loops."""

from __future__ import annotations

import sys

import numpy as np

from fastnn.plan.program import Program
from fastnn.runtime.cpu import layout
from fastnn.runtime.cpu.poison import Poison
from fastnn.runtime.cpu.records import Tables
from fastnn.runtime.segment import aligned_zeros


class Placed:
    """Operands whose addresses change while a program runs.

    Of local memory each worker has its own piece, for one block of a group's items at a time. Such
    an operand has no address of its own: the run loop writes one into the worker's own copy of the
    record, so that the block's first item lies at the beginning of the worker's piece. What moves
    in loops is placed there, too; `times` has the steps in which each worker is.
    """

    def __init__(self, program: Program, tables: Tables):
        self.size = -(-program.sizes.get("local", 0) // 4096) * 4096
        self.tables, table = tables, tables.table
        self.local, self.moves, self.by_loop = tables.local, tables.moves, tables.by_loop
        self.numbers = tables.numbers
        #: the words of loops, and the lists in them
        self.words = np.zeros((len(table.lengths), layout.LOOP_WORDS), np.int64)
        self.words[:, 0], self.words[:, 5] = table.lengths, table.reverse
        self.watches = {k: np.array(watch, np.int64) for k, watch in tables.watches.items()}
        for loop, watch in self.watches.items():
            self.words[loop, 6] = watch.ctypes.data
        self.lists: dict[int, list[np.ndarray]] = {}
        #: for how many workers there is memory
        self.workers = 0 if self.numbers or table.depth else sys.maxsize
        self.depth = -(-max(table.depth, 1) // 8) * 8  # cache lines of their own
        self.placing: list[np.ndarray] = []
        self.earlier: list[np.ndarray] = []
        self.memory, self.times = aligned_zeros(0), np.zeros((1, self.depth), np.int64)

    def provide(
        self, workers: int, records: list[np.ndarray], calls: np.ndarray, poison: Poison | None
    ) -> None:
        """Memory for so many workers, and a copy of the records for each; `workers` is for the
        caller to set, when all is done."""
        self.workers, self.placing = 0, []  # for nobody, should an interrupt come before the end
        self.memory = aligned_zeros(workers * self.size)
        self.earlier.append(self.times)  # runs that were described before go on with it
        self.times = aligned_zeros(workers * self.depth, np.int64).reshape(workers, self.depth)
        tables: dict[int, list[int]] = {}
        advances: dict[int, list[list[int]]] = {}
        for number in self.numbers:
            record = np.repeat(records[number][:1], workers + 1, axis=0)
            local, moves = self.local.get(number, []), self.moves.get(number, [])
            words = [record.strides[0], record.ctypes.data, len(local), len(moves)]
            for slot, operand in local:
                start = self.memory.ctypes.data + operand.offset
                words += [slot, start, self.size, operand.per_item]
            for move in moves:
                words += move
            self.placing.append(np.array(words, np.int64))
            records[number] = record
            calls[number, 1] = record.ctypes.data
            calls[number, 3] = self.placing[-1].ctypes.data
            if number in self.by_loop:
                calls[number, 3] = -record.strides[0]
                loop = self.by_loop[number]
                tables.setdefault(loop, []).append(self.placing[-1].ctypes.data)
                advances.setdefault(loop, []).extend(
                    [record[1, slot:].ctypes.data, record.strides[0], by]
                    for slot, by in self.tables.advances(number)
                )
        self.lists = {}
        for loop, addresses in tables.items():
            lists = [np.array(addresses, np.int64), np.array(advances[loop], np.int64)]
            counts = len(addresses), len(advances[loop])
            for k, (count, array) in enumerate(zip(counts, lists, strict=True)):
                self.words[loop, 1 + 2 * k : 3 + 2 * k] = count, array.ctypes.data
            self.lists[loop] = lists
        if poison is not None:
            poison.local(self.memory)

    def places(self) -> list[np.ndarray]:
        """Where the words of `Tables.vector` are that are about placing, in its order."""
        found: list[np.ndarray] = []
        passed = dict.fromkeys(self.lists, 0)
        for number, words in zip(self.numbers, self.placing, strict=True):
            local, moves = len(self.local.get(number, ())), len(self.moves.get(number, ()))
            end = layout.PLACED_WORDS + layout.LOCAL_OPERAND_WORDS * local
            found.append(
                addresses(words[layout.PLACED_WORDS + 3 : end][:: layout.LOCAL_OPERAND_WORDS])
            )
            found.append(
                addresses(words[end + 2 : end + layout.MOVE_WORDS * moves][:: layout.MOVE_WORDS])
            )
            if number in self.by_loop:
                loop, count = self.by_loop[number], len(self.tables.advances(number))
                first = passed[loop]
                found.append(
                    addresses(
                        self.lists[loop][1].reshape(-1, layout.ADVANCE_WORDS)[
                            first : first + count, 2
                        ]
                    )
                )
                passed[loop] += count
        return found


def addresses(words: np.ndarray) -> np.ndarray:
    """The addresses of an array's words."""
    return words.ctypes.data + words.strides[0] * np.arange(len(words))

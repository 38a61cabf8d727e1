"""What the fuzzers share: mutations of bytes, and what an input may cost."""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from fastnn.errors import FastnnError

#: the most that reading one input may take: seconds of the processor, megabytes more than at first
SECONDS, MEGABYTES = 2.0, 200

#: pieces of text that parsers stumble over
TEXTS = (
    b"-1", b"1e999", b"NaN", b"\n", b"\r", b"\0", b'"', b"[" * 99, b"9" * 30, b"\xc3\x28",
    b"\xed\xa0\x80", b" ", b"\t", b",",
)  # fmt: skip


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Some changes of the kinds that break parsers: bits, numbers, lengths, pieces."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(8)
        size = chance.choice((1, 2, 4, 8, 16, 64))
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place : place + size] = chance.choice(
                (b"\xff" * size, b"\x00" * size, b"\x7f" + b"\xff" * (size - 1), b"\x80" * size)
            )
        elif kind == 2:
            data[place : place + size] = chance.randbytes(size)
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + size]
        elif kind == 5:
            data[place:place] = data[place : place + size] * chance.choice((1, 2, 50))
        elif kind == 6:
            text = chance.choice(TEXTS)
            data[place : place + chance.choice((0, len(text)))] = text
        else:
            other = chance.randrange(len(data) + 1)
            data[place : place + size] = data[other : other + size]
    return bytes(data)


def peak() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Watcher:
    """Runs a reader on inputs; collects what it must not do."""

    def __init__(self, name: str):
        self.name, self.done, self.refused = name, 0, 0
        self.faults: list[str] = []
        self.before, self.slowest = peak(), 0.0

    def run(self, read: Callable[[], object], case: object) -> bool:
        """Whether the input was accepted."""
        begin = time.process_time()
        accepted = False
        try:
            read()
            accepted = True
        except FastnnError as error:
            self.refused += 1
            if "\n" in str(error):
                self.faults.append(f"{self.name} {case}: more than a line: {error}")
        except Exception:
            self.faults.append(f"{self.name} {case}: {traceback.format_exc()}")
        took = time.process_time() - begin
        self.done, self.slowest = self.done + 1, max(self.slowest, took)
        if took > SECONDS:
            self.faults.append(f"{self.name} {case}: {took:.1f} s")
        return accepted

    def finish(self) -> None:
        grown = peak() - self.before
        if grown > MEGABYTES:
            self.faults.append(f"{self.name}: {grown:.0f} MB more")

    def __str__(self) -> str:
        return (
            f"{self.name:<12} {self.done:>7} inputs, {self.refused:>7} refused, slowest "
            f"{self.slowest:.2f} s, {peak() - self.before:.0f} MB more, {len(self.faults)} faults"
        )


def main(runs: dict[str, Callable[[int, int, Path], Watcher]], default: int) -> None:
    """A command line: `NAMES --count N --seed S`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(runs))
    parser.add_argument("--count", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    faults = 0
    for name in chosen.names:
        with tempfile.TemporaryDirectory() as folder:
            watcher = runs[name](chosen.count, chosen.seed, Path(folder))
        print(watcher, flush=True)
        for fault in watcher.faults[:5]:
            print(fault, flush=True)
        faults += len(watcher.faults)
    sys.exit(min(faults, 1))


def fresh(path: Path, content: bytes) -> Path:
    """The same file again with other contents."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)
    return path

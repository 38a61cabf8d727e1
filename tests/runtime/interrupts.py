"""Thousands of interrupts, at random moments and lines; run by hand, it takes minutes.

python -m tests.runtime.interrupts [interrupts] [busy processes]

Trains, steps and predicts while a timer raises KeyboardInterrupt, now and then several in a row,
and busy processes compete for the cores. Everything goes on after each; in the end all numbers have
to be those of a run that nobody interrupted.
"""

from __future__ import annotations

import faulthandler
import functools
import subprocess
import sys
import threading
import time

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.runtime.cpu import layout, team
from tests.runtime import interrupting
from tests.train import test_interrupted

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 300)
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass\n"
#: seconds without a round that has ended after which this counts as a hang
HANG = 300
#: seconds after which such a round is described
SLOW = 60
say = functools.partial(print, flush=True)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm(16), nn.Dropout(0.2), nn.Linear(16, 3))


def one_round(seed: int, arm: interrupting.Arm | None) -> tuple[int, list[bytes]]:
    """Three ways of use, interrupted; how many interrupts came through, and the results."""
    rng = np.random.default_rng(seed)
    workers, caught = int(rng.integers(1, 5)), 0
    model, stepped = net(), net()
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(), workers=workers)
    step = fnn.compile(stepped, "cross_entropy", optim.Adam(), workers=workers)
    epochs, steps, rows = 6, 60, []

    def work() -> None:
        while trainer.place[0] < epochs:
            left = epochs - trainer.place[0]
            if trainer.fit(X, Y, epochs=left, batch_size=25, verbose=False).stopped != "completed":
                raise KeyboardInterrupt
        while step.steps < steps:
            step(X[: 20 + step.steps], Y[: 20 + step.steps])
        rows[:] = [model.predict(X[:7]), model.predict(X, batch_size=40)]

    while not rows:
        if arm is not None:
            arm(10.0 ** rng.uniform(-4.5, -1.0), rng.choice([0.0, 1e-4, 3e-4], p=[0.8, 0.1, 0.1]))
        try:
            work()
        except KeyboardInterrupt:
            caught += 1
            if arm is not None:
                arm(0.0, 0.0)
    if arm is not None:
        arm(0.0, 0.0)
    results = [*rows, *model.state_dict().values(), *stepped.state_dict().values()]
    return caught, [array.tobytes() for array in results]


class Watch:
    """Describes the threads and the teams' tables while a round takes suspiciously long."""

    def __init__(self) -> None:
        self.progress = 0
        threading.Thread(target=self._look, daemon=True).start()

    def tick(self) -> None:
        self.progress += 1

    def _look(self) -> None:
        seen, since = -1, 0.0
        while True:
            if self.progress != seen:
                seen, since = self.progress, time.monotonic()
            elif time.monotonic() - since > SLOW:
                since = time.monotonic()
                say(f"no round has ended for {SLOW} s; the last that did: {seen}")
                faulthandler.dump_traceback(all_threads=True)
                for reference in list(team._teams.values()):
                    found = reference()
                    if found is not None:
                        describe(found)
            time.sleep(1)


def describe(found: team.Team) -> None:
    table, states = found.table, found.table[layout.TEAM_STATES :: layout.TEAM_STRIDE]
    threads = table[layout.TEAM_STATES + layout.TEAM_THREAD :: layout.TEAM_STRIDE]
    head = ", ".join(f"{word:#x}" for word in table[: layout.TEAM_STATES])
    say(f"team of {found.workers}: states {states}, threads {threads}, kept {found.kept}; {head}")
    for description in found.kept:
        say(f"  {description.words}, control {description._control}")


def main(interrupts: int = 10_000, busy: int = 8) -> None:
    rivals = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    caught = rounds = 0
    watch, start = Watch(), time.monotonic()
    try:
        _, wanted = one_round(0, None)
        with interrupting.alarms() as arm:
            while caught < interrupts:
                faulthandler.dump_traceback_later(HANG, exit=True)
                came, found = one_round(rounds, arm)
                assert found == wanted, f"round {rounds}"
                caught, rounds = caught + came, rounds + 1
                watch.tick()
                if rounds % 20 == 0:
                    say(f"{caught} interrupts, {rounds} rounds")
        seconds = time.monotonic() - start
        say(f"{caught} interrupts in {rounds} rounds, {seconds:.0f} s: no hang, no step lost")
        for way in ("arrays", "validation", "batches"):
            faulthandler.dump_traceback_later(10 * HANG, exit=True)
            lines = test_interrupted.every_line(way, 2, 20, watch.tick)
            say(f"{way}: interrupts before every twentieth of {lines} lines of fit")
    finally:
        faulthandler.cancel_dump_traceback_later()
        for rival in rivals:
            rival.kill()
            rival.wait()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Sizes that share a plan, on a stand-in for the driver: what it is asked for, what is kept."""

from __future__ import annotations

import pytest

from tests.stub.harness import Ran, numbers, run

#: the last two follow from formulas
LENGTHS = (20, 9, 14, 3, 11, 17)
SCRIPT = """
import os
os.environ["FASTNN_POISON"] = "0"  # which fills memory by launches of its own
from fastnn.engine import plans
from fastnn.runtime.cuda import ahead, bound
bound.MOST_LAUNCHES = 10**9  # bodies of longer loops are launched again and again (test_again.py)
from fastnn.runtime.cuda.gpu import Gpu
from fastnn.runtime.cuda.made import made
from fastnn.runtime.cuda.prepared import Prepared

prepared, real_prepared = [0], Gpu.prepared

def counted(*given, **more):
    prepared[0] += 1
    return real_prepared(*given, **more)

Gpu.prepared = counted

class Tagger(nn.Module):
    def __init__(self):
        self.cell, self.out = nn.LSTM(6, 8), nn.Linear(8, 4)
    def forward(self, x):
        return self.out(self.cell(x)[0])

class Loop(nn.Module):
    def __init__(self):
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 4)
    def forward(self, x):
        def body(x, h):
            h = self.cell(x, h)
            return h, h
        return self.out(ops.loop(body, x, ops.zeros_state(x, 8))[0])

def steps(name, model, lengths, times=3):
    step = fnn.compile(model, "cross_entropy", optim.SGD(0.1), device="cuda")
    for length in lengths:
        before = prepared[0]
        for k in range(times):
            section(f"{name} {length} {k}")
            step(*data(4, length, 6, steps=(length,)))
        print("prepared", name, length, prepared[0] - before)
    section("")
    print(name, sum(map(len, step._plans._plans.values())))
    return step

LENGTHS = (20, 9, 14, 3, 11, 17)
kept = [steps("shared lstm", Tagger(), LENGTHS), steps("shared loop", Loop(), LENGTHS)]
def words(launch):
    return [(type(a).__name__, a.item()) for a in launch.arguments], launch.how, launch.words

for step in kept:  # the launches of sizes within a plan, and the same prepared anew
    for single in step._ready.values():
        own = single.bound
        sent = [one for part in own.parts for one, _ in part.each() if hasattr(one, "calls")]
        sent = [one for one in sent if isinstance(one.launch, Prepared)]
        anew = [made(one.calls, own.place).prepare(own.gpu, "float32") for one in sent]
        same = all(words(one.launch) == words(new) for one, new in zip(sent, anew))
        print("words", own.program.within is not None, len(sent), same)
looked = []
there = ahead._is_there
ahead._is_there = lambda variant: looked.append(variant) or there(variant)
kept[0](*data(4, 13, 6, steps=(13,)))
print("asked for", len(looked), "kernels of the cache")
x, y = data(50, 12, 6, steps=(12,))
trainer = fnn.Trainer(Loop(), "cross_entropy", device="cuda")
def batches():
    for begin, end in ((0, 32), (32, 50)) * 4:
        yield x[begin:end], y[begin:end]
section("batches")
trainer.fit(batches(), epochs=1, verbose=False)
section("")
class Shifted(nn.Module):
    def __init__(self):
        self.out = nn.Linear(6, 4)
    def forward(self, x):
        return self.out(x) + np.arange(4, dtype=np.float32)
step = fnn.compile(Shifted(), lambda out, y: ops.sum(ops.square(out)), device="cuda")
for length in (20, 9, 14):
    step(*data(4, length, 6, steps=(length,)))
bounds = [single.bound for single in step._ready.values()]
print("constants", len({id(bound.segments["constant"]) for bound in bounds}), len(bounds),
      bounds[0].program.constants[0][1].tolist())
plans.resized, plans.EXACT = (lambda *_: None), 10**9
steps("own lstm", Tagger(), LENGTHS), steps("own loop", Loop(), LENGTHS)
"""


@pytest.fixture(scope="module")
def ran() -> Ran:
    return run(SCRIPT)


def test_nothing_is_refused_and_all_is_given_back(ran: Ran):
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert {ran.left[name] for name in ("blocks", "streams", "events", "graphs")} == {0}


@pytest.mark.parametrize("kind", ["lstm", "loop"])
def test_a_smaller_size_makes_the_launches_of_its_own_program(ran: Ran, kind: str):
    lines = [x.split() for x in ran.output.splitlines() if x.startswith(("shared", "own"))]
    plans = {how: int(count) for how, what, count in lines if what == kind}
    assert plans == {"shared": 1, "own": 6}
    for length in LENGTHS:
        for k in range(3):
            both = [
                [x for x in ran.section(f"{how} {kind} {length} {k}") if x.startswith("Launch")]
                for how in ("shared", "own")
            ]
            assert both[0] == both[1]
            assert bool(both[0]) == (k < 2)  # the third time its graph is there


@pytest.mark.parametrize("kind", ["lstm", "loop"])
def test_only_launches_that_differ_are_prepared_for_a_smaller_size(ran: Ran, kind: str):
    lines = [x.split() for x in ran.output.splitlines() if x.startswith("prepared ")]
    count = {(how, int(n)): int(k) for _, how, what, n, k in lines if what == kind}
    for length in LENGTHS[1:]:
        most = {11: 1, 17: 0}  # of the first one the check of its integers
        assert count["shared", length] <= most.get(length, count["own", length] - 1)


def test_what_is_prepared_from_another_size_has_the_words_of_its_own(ran: Ran):
    lines = [x.split() for x in ran.output.splitlines() if x.startswith("words ")]
    assert [line[1] for line in lines].count("True") >= 10  # five lengths of two models
    assert all(int(count) > 0 and same == "True" for _, _, count, same in lines)


@pytest.mark.parametrize("kind", ["lstm", "loop"])
def test_memory_is_shared_by_all_sizes(ran: Ran, kind: str):
    """The first size takes it; one that is smaller has its own constants at most."""
    for length in LENGTHS[1:]:
        log = ran.section(f"shared {kind} {length} 0")
        taken = [numbers(line)["size"] for line in log if line.startswith("MemAlloc")]
        assert sum(taken) <= 4096  # work memory is ten times as much
    assert "constants 1 6 [0.0, 1.0, 2.0, 3.0]" in ran.output


def test_kernels_that_are_loaded_are_not_looked_for(ran: Ran):
    assert "asked for 0 kernels" in ran.output


def test_a_smaller_batch_sends_nothing_beyond_its_targets(ran: Ran):
    """Its arrays lie where the larger batch's do; what comes after its last one is not sent."""
    sent = [numbers(x)["size"] for x in ran.section("batches") if x.startswith("HtoD")]
    x, y = 4 * 32 * 12 * 6, 8 * 12  # bytes of the larger batch's data, of a sequence's targets
    assert [size for size in sent if size in (x + 32 * y, x + 18 * y)] == [
        x + 32 * y,
        x + 18 * y,
    ] * 4
    assert max(sent[-8:]) == x + 32 * y

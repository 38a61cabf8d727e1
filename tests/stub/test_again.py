"""Long loops on a stand-in for the driver: their bodies are captured once, for any length."""

from __future__ import annotations

import textwrap

import pytest

from tests.stub.harness import Ran, numbers, run

#: the first is planned for
LENGTHS = (150, 100, 90, 149, 97)
SCRIPT = """
import os
os.environ["FASTNN_POISON"] = "0"  # which fills memory by launches of its own
from fastnn.runtime.cuda import again
from fastnn.runtime.cuda.bound import CudaProgram
from fastnn.runtime.cuda.made import made
from fastnn.runtime.cuda.order import each
from fastnn.runtime.cuda.prepared import arguments_of
from fastnn.runtime.cuda.rows import row_of

class Loop(nn.Module):
    def __init__(self):
        self.cell, self.out = nn.RNNCell(6, 8), nn.Linear(8, 4)
    def forward(self, x):
        def body(x, h):
            h = self.cell(x, h)
            return h, h
        return self.out(ops.loop(body, x, ops.zeros_state(x, 8))[0])

def made_alone(bound, call):
    one = made((call,), bound.place)
    return row_of(arguments_of(one.kernel, "float32", one.operands)).tolist()

def next_step(words, moves, by, counter):  # as the kernel, which the stand-in does not run
    words[moves[:, 0]] = moves[:, 1] + moves[:, 2] * counter
    return counter + by

def same_words(bound, part):
    # whether each step of a loop reads the arguments of the calls that the program makes in it
    table = again.table_of(part.loop._launches, times := again.times_of(len(part.loop._launches)))
    words, counter, at, good = table.words.copy(), 0, 0, []
    calls = [(one.calls, steps) for one, steps in part.each()]
    body = len(table.rows) // times
    while counter < part.steps.length:
        while counter + times > part.steps.length:
            times //= 2
        counter = next_step(words, table.moves[:times * table.once], times, counter)
        count = body * times
        for begin, (calls_, steps) in zip(table.rows[:count], calls[at : at + count]):
            (call,) = calls_
            own = made_alone(bound, call.at(steps))
            good.append(words[begin : begin + len(own)].tolist() == own)
        at += count
    return len(good), all(good) and at == len(calls)

def alone(length):
    return fnn.compile(Loop(), "cross_entropy", optim.SGD(0.1), device="cuda")

bounds, init = [], CudaProgram.__init__
def noted(self, *given):
    init(self, *given)
    bounds.append(self)
CudaProgram.__init__ = noted
step = alone(150)
for length in (150, 100, 90, 149, 97):
    for turn in range(3):
        section(f"{length} {turn}")
        step(*data(4, length, 6, steps=(length,)))
for bound in bounds:
    for part in bound.parts:
        if isinstance(part, again.Repeated):
            count, body = len(part.steps.body), id(part.loop._ready[0])
            times = again.times_of(count)
            print("loop", part.steps.length, count, times, *same_words(bound, part), body)
section("longer")
longer = alone(600)
longer(*data(4, 600, 6, steps=(600,)))
longer(*data(4, 600, 6, steps=(600,)))
section("short")
short = alone(9)
for turn in range(2):
    short(*data(4, 9, 6, steps=(9,)))
section("")
"""


@pytest.fixture(scope="module")
def ran() -> Ran:
    return run(SCRIPT)


def of(log: list[str], what: str) -> list[dict[str, int]]:
    return [numbers(line) for line in log if line.startswith(what + " ")]


def loops(ran: Ran) -> list[list[str]]:
    """Steps, launches of a step, how many are captured together, words compared, whether they are
    the same, and the body, of the loops of all lengths."""
    return [line.split()[1:] for line in ran.output.splitlines() if line.startswith("loop ")]


def test_nothing_is_refused_and_all_is_given_back(ran: Ran) -> None:
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert {ran.left[name] for name in ("blocks", "streams", "events", "graphs")} == {0}


def test_each_step_reads_the_words_of_its_own_calls(ran: Ran) -> None:
    found = loops(ran)
    assert [int(own[0]) for own in found] == [n for n in LENGTHS for _ in range(2)]
    for steps, count, _, compared, same, _ in found:
        assert int(compared) == int(steps) * int(count)
        assert same == "True"


def test_a_body_is_captured_once_for_all_lengths(ran: Ran) -> None:
    """Only what is beside the loops is captured for a length of its own, when it comes again."""
    assert len({body for *_, body in loops(ran)}) == 2  # forward and back
    captured = {length: of(ran.section(f"{length} 0"), "EndCapture") for length in LENGTHS}
    nodes = sum(end["nodes"] for ends in captured.values() for end in ends)
    most = [int(count) * 2 * int(times) for _, count, times, *_ in loops(ran)[:2]]
    assert nodes < sum(most) + 20  # each power of 2 of steps, with a launch that counts them
    assert captured[LENGTHS[-1]] == []
    for length in LENGTHS:
        assert of(ran.section(f"{length} 2"), "EndCapture") == []


def test_a_longer_loop_has_no_more_nodes_and_calls_nothing_for_its_launches(ran: Ran) -> None:
    counts = []
    for name in ("150 0", "longer"):
        log = ran.section(name)
        bodies = [end["nodes"] for end in of(log, "EndCapture")]
        counts.append(max(bodies))
    assert counts[0] == counts[1]
    beside = set()
    for length in LENGTHS:
        log = ran.section(f"{length} 2")
        assert of(log, "Launch") == []
        launches = len(of(log, "GraphLaunch"))
        for own in loops(ran):
            steps, times = int(own[0]), int(own[2])
            launches -= (steps // times + (steps % times).bit_count()) * (steps == length)
        beside.add(launches)
    assert len(beside) == 1
    assert max(beside) <= 4


def test_the_steps_of_a_short_loop_are_nodes_of_one_graph(ran: Ran) -> None:
    ends = of(ran.section("short"), "EndCapture")
    assert len([end for end in ends if end["nodes"] > 9 * 5]) == 1


def test_a_kernel_that_cant_read_a_row_has_all_steps_as_nodes() -> None:
    """At all lengths of the plan: nothing fails, and the log says which kernel it is."""
    refusing = """
    from fastnn.runtime.cuda import rows
    code = rows.code
    rows.code = lambda *v: rows.NONE if "tanh" in v[0].name else code(*v)
    """
    begin, end = SCRIPT.index("class Loop"), SCRIPT.index("def made_alone")
    steps = """
    step = fnn.compile(Loop(), "cross_entropy", optim.SGD(0.1), device="cuda")
    for length in (150, 90, 100):
        for turn in range(2):
            section(f"{length} {turn}")
            step(*data(4, length, 6, steps=(length,)))
    section("")
    """
    parts = map(textwrap.dedent, (refusing, SCRIPT[begin:end], steps))
    ran = run("".join(parts))
    assert (ran.status, ran.mistakes) == (0, []), ran.output
    assert "can't be made to read its arguments" in ran.output
    for length in (150, 90, 100):
        assert max(one["nodes"] for one in of(ran.section(f"{length} 1"), "EndCapture")) > length


def test_a_graph_whose_capture_failed_is_captured_in_the_next_step() -> None:
    ran = run("""
    import os
    os.environ["FASTNN_POISON"] = "0"
    from fastnn.runtime.cuda.gpu import Gpu
    capture = Gpu.capture
    def failing(*_):
        Gpu.capture = capture
        raise MemoryError("none is left")
    step = fnn.compile(nn.Linear(6, 4), "cross_entropy", optim.SGD(0.1), device="cuda")
    step(*data(4, 6))
    Gpu.capture = failing
    try:
        step(*data(4, 6))
    except MemoryError:
        print("failed")
    for name in ("next", "later"):
        section(name)
        step(*data(4, 6))
    section("")
    """)
    assert (ran.status, ran.mistakes) == (0, []), ran.output
    assert "failed" in ran.output
    assert of(ran.section("next"), "EndCapture")
    assert of(ran.section("later"), "Launch") == []

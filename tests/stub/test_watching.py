"""Looking at a step on a stand-in for the driver: times by events, ranges with layers' names."""

from __future__ import annotations

from tests.stub.harness import numbers, run

MODEL = """
model = nn.Sequential(nn.Linear(20, 8), nn.GELU(), nn.Linear(8, 4))
step = fnn.compile(model, "cross_entropy", optim.Adam(1e-3), device="cuda")
"""
#: writes ranges to the driver's log, among its launches
NVTX = """
import os, sys, types
fake = types.ModuleType("nvtx")
def note(text):
    with open(os.environ["STUB_LOG"], "a") as log:
        print(text, file=log)
fake.push_range = lambda name, domain: note(f"push {domain} {name}")
fake.pop_range = lambda domain: note(f"pop {domain}")
sys.modules["nvtx"] = fake
os.environ["FASTNN_NVTX"], os.environ["FASTNN_POISON"] = "1", "0"
"""


def test_each_launch_is_timed_by_two_events():
    ran = run(
        MODEL
        + """
for _ in range(3):
    step(*data(16, 20))
steps = step.steps
section("profile")
found = fnn.profile(step, *data(16, 20), repeats=2)
section("after")
print(sorted(found.by_layer()), len(found.calls), found.calls[0].seconds, found.memory["params"])
print(step.steps == steps, "linear_forward_tiny" in str(found))
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert "True True" in ran.output
    assert "['(step)', '0', '1', '2', 'loss']" in ran.output
    assert " 0.001 " in ran.output  # what the stand-in says of any two events
    timed = [line for line in ran.section("profile") if line.startswith("EventCreate flags=0")]
    count = int(ran.output.split("] ")[1].split()[0])
    assert len(timed) == 2 * 2 * count  # a launch has two, and is made twice


def test_ranges_have_the_names_of_layers_around_their_launches():
    ran = run(
        NVTX
        + MODEL
        + """
section("step")
step(*data(16, 20))
step(*data(16, 20))
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    log = ran.section("step")
    first = log.index("push fastnn 0")
    assert log[first + 1].startswith("push fastnn linear_forward")
    assert log[first + 2].startswith("Launch ")
    assert log[first + 3 : first + 5] == ["pop fastnn", "pop fastnn"]
    names = {line.removeprefix("push fastnn ") for line in log if line.startswith("push")}
    assert {"0", "1", "2", "loss", "(step)", "adam_update_saving"} <= names
    assert not any("Graph" in line for line in log)  # a graph that is replayed has no ranges


def test_the_report_of_memory_is_what_the_driver_gave():
    """Each segment is one piece of the device's memory, and each piece is named, but for the
    control block with the totals."""
    ran = run(
        """
from fastnn.runtime.cuda.device import ALIGNMENT
section("train")
"""
        + MODEL
        + """
for _ in range(3):
    step(*data(16, 20))
section("profile")
found = fnn.profile(step, *data(16, 20), repeats=1)
section("end")
print("named", *(-(-size // ALIGNMENT) * ALIGNMENT for size in found.memory.values()))
assert str(found).splitlines()[-1].split() == ["all", f"{sum(found.memory.values()):,}"]
"""
    )
    assert ran.status == 0, ran.output
    named = sorted(map(int, ran.output.split("named ")[1].split()))
    taken = [x for x in ran.section("train") if x.startswith(("MemAllocFromPool", "MemFree"))]
    given = sorted(numbers(x)["size"] for x in taken if x.startswith("MemAlloc"))
    assert len(taken) == len(given)  # nothing was given back
    given.remove(256)
    assert given == named

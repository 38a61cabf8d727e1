"""Allocations with guards and of exact sizes, on a stand-in for the driver."""

from __future__ import annotations

import re

import pytest

from tests.stub.harness import Ran, run

TRAINING = """
import ctypes, gc, os
os.environ["FASTNN_CUDA_GUARD"] = {mode!r}
class Net(nn.Module):
    def __init__(self):
        self.lstm, self.out = nn.LSTM(5, 7), nn.Linear(7, 3)
    def forward(self, x):
        return self.out(self.lstm(x)[0])
model = Net()
t = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda")
x, y = data(7, 3, 5, classes=3, steps=(3,))
section("training")
t.fit(x, y, epochs=2, batch_size=4, verbose=False)
t.fit([(x, y)] * 5, epochs=1, verbose=False)
t.evaluate(x, y)
model.predict(x)
section("after")
"""


@pytest.mark.parametrize("mode", ["1", "exact"])
def test_trainings_run_and_give_all_back(mode: str):
    ran = run(TRAINING.format(mode=mode))
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    nothing_is_left(ran)
    sizes = [int(n) for n in re.findall(r"MemAlloc size=(\d+)", "\n".join(ran.log))]
    assert sizes
    assert not any("FromPool" in line or "MemAllocAsync" in line for line in ran.log)
    beside = 512 if mode == "1" else 0
    assert 7 * 3 * 5 * 4 + beside in sizes  # the inputs' array, to the byte


def test_a_write_past_the_end_stops_the_run():
    """Device memory is the host's here, so that a test can do what a faulty kernel does."""
    ran = run(
        TRAINING.format(mode="1")
        + """
piece = next(iter(t.session.runtime.memory.segments["work"].copies.values()))
ctypes.memset(piece.address + piece.size, 0, 1)
try:
    t.fit(x, y, epochs=1, batch_size=4, verbose=False)
except fnn.errors.DeviceError as error:
    print("found:", error)
"""
    )
    assert ran.status == 0, ran.output
    assert "found: cuda:0: a kernel has written 1 bytes past the end" in ran.output
    assert "'work'" in ran.output


def nothing_is_left(ran: Ran) -> None:
    left = ran.left
    assert {k: left[k] for k in ("blocks", "streams", "events", "graphs")} == {
        "blocks": 0, "streams": 0, "events": 0, "graphs": 0,
    }  # fmt: skip

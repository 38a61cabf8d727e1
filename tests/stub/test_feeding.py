"""Batches from iterables on a stand-in for the driver: how they travel, and what is left."""

from __future__ import annotations

import pytest

from tests.stub.harness import Ran, run

FED = """
import sys, threading

class Batches:
    def __init__(self, count, rows=32, fail=None, at=0):
        self.count, self.fail, self.at = count, fail, at
        self.batch = data(rows, 20)
    def __iter__(self):
        for k in range(self.count):
            if self.fail and k == self.at:
                raise self.fail
            yield self.batch

def trainer():
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 4))
    return fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda")

def fit(batches, t=None, **options):
    t = t or trainer()
    t.fit(batches, epochs=1, verbose=False, **options)
    return t

def sending():
    stacks = [frame for frame in sys._current_frames().values()]
    names = []
    for frame in stacks:
        while frame:
            names.append(frame.f_code.co_filename.rsplit("/", 1)[-1])
            frame = frame.f_back
    return "stream.py" in names
"""


def kinds(log: list[str]) -> list[str]:
    """The calls of a section, by name, with the stream of each copy."""
    return [line.split()[0] for line in log]


@pytest.fixture(scope="module")
def ran() -> Ran:
    return run(
        FED
        + """
t = trainer()
fit(Batches(40), t)
section("steps")
fit(Batches(40), t)
section("evaluation")
t.evaluate(Batches(40))
section("slow")

class Slow(Batches):
    def __iter__(self):
        import os, time
        time.sleep(0.2)  # the thread that sends has gone to sleep
        yield from super().__iter__()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            log = open(os.environ["STUB_LOG"]).read().split("# slow")[1]
            if log.count("GraphLaunch") == self.count:
                break
            time.sleep(0.005)
        print("launched", log.count("GraphLaunch"))

from fastnn.runtime.cuda import stream
stream.SLOW = 1e9  # however busy the machine is
fit(Slow(3), t)
section("end")
print("threads", sending())
"""
    )


def test_every_call_is_one_that_the_driver_takes(ran: Ran):
    assert ran.status == 0, ran.output
    assert ran.mistakes == []


def test_batches_go_from_pinned_memory_on_a_stream_of_their_own(ran: Ran):
    for name, steps in (("steps", 40), ("evaluation", 38)):
        log = ran.section(name)
        sent = [line for line in log if line.startswith("HtoD") and "pinned=1" in line]
        (main,) = {line.split()[1] for line in log if line.startswith("GraphLaunch")}
        beside = [line for line in sent if f"stream={main}" not in line]
        assert len(beside) >= steps, name
        assert not any("size=2560 " in x and "pinned=0" in x for x in log), name


def test_a_step_waits_for_its_batch_and_for_nothing_else(ran: Ran):
    """Copy, event, the other stream waits for it, copy to where it is read, the step."""
    log = ran.section("steps")
    names = kinds(log)
    launches = [k for k, name in enumerate(names) if name == "GraphLaunch"]
    assert len(launches) == 40
    want = ["HtoD", "EventRecord", "StreamWaitEvent", "DtoD", "GraphLaunch"]
    for k in launches:
        assert names[k - 4 : k + 1] == want
    waits = names.count("EventSynchronize") + names.count("StreamSynchronize")
    assert waits <= 40 // 4 + 6  # half a ring at a time


def test_batches_do_not_wait_for_others_that_are_long_in_coming(ran: Ran):
    """Three quick ones are less than what is sent at once; the iterable then waits for them."""
    assert "launched 3" in ran.output


def test_the_ring_is_kept_and_nothing_is_left(ran: Ran):
    names = kinds(ran.section("steps"))
    assert "MemHostAlloc" not in names
    assert "MemAllocAsync" not in names
    assert "threads False" in ran.output
    nothing_is_left(ran)


def nothing_is_left(ran: Ran) -> None:
    left = ran.left
    assert {k: left[k] for k in ("blocks", "streams", "events", "graphs")} == {
        "blocks": 0, "streams": 0, "events": 0, "graphs": 0,
    }  # fmt: skip


def test_errors_interrupts_and_stops():
    ran = run(
        FED
        + """
from fastnn.train.hooks import Callback

class Raising(Callback):
    def on_train_batch_end(self, batch, logs):
        raise RuntimeError("callback")

class Stopping(Callback):
    def on_train_batch_end(self, batch, logs):
        self.trainer.stop_training = batch == 2

for name, batches, callbacks in (
    ("error", Batches(20, fail=ValueError("iterable"), at=11), []),
    ("first", Batches(20, fail=ValueError("iterable"), at=0), []),
    ("interrupt", Batches(20, fail=KeyboardInterrupt(), at=11), []),
    ("callback", Batches(20), [Raising()]),
    ("stopping", Batches(20), [Stopping()]),
    ("none", Batches(0), []),
):
    section(name)
    try:
        fit(batches, callbacks=callbacks)
        print(name, "went through")
    except Exception as error:
        print(name, "raised", error)
    print(name, "threads", sending())

section("threads")
models = [trainer() for _ in range(2)]
threads = [threading.Thread(target=fit, args=(Batches(60), t)) for t in models]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("both", sending())
section("end")
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    for text in (
        "error raised iterable", "first raised iterable", "interrupt went through",
        "callback raised callback", "stopping went through", "none raised the iterable",
        "both False",
    ):  # fmt: skip
        assert text in ran.output
    assert "threads True" not in ran.output
    for name, steps in (("error", 11), ("interrupt", 11), ("stopping", 3), ("callback", 1)):
        # one by one the first time, as a graph from the second on
        graphs = sum(line.startswith("GraphLaunch") for line in ran.section(name))
        assert graphs == steps - 1, name
    both = [line for line in ran.section("threads") if line.startswith("GraphLaunch")]
    assert len(both) == 2 * 59
    nothing_is_left(ran)


def test_a_device_that_is_lost():
    ran = run(
        FED
        + """
try:
    fit(Batches(40))
except fnn.errors.DeviceError as error:
    print("lost:", error)
print("threads", sending())
""",
        LOST=200,
    )
    assert ran.status == 0, ran.output
    assert "lost: " in ran.output
    assert "threads False" in ran.output


def test_ctrl_c_at_any_moment():
    """Signals at times drawn at random: each ends the run, and the next one goes on from there.

    Kernels are compiled before: there a `__del__` of Python's own may have a signal and lose it.
    """
    ran = run(
        FED
        + """
import os, signal, time
t, hits = fit(Batches(2)), 0
draw = np.random.default_rng(5)
for _ in range(12):
    delay = float(draw.uniform(0.0, 0.03))
    def send():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=send)
    try:
        thread.start()
        t.fit(Batches(10**9), epochs=1, verbose=False)
        hits += t.interrupted
    except KeyboardInterrupt:
        hits += 1
    thread.join()
    t.cursor = 0
print("hits", hits, "threads", sending())
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert "hits 12 threads False" in ran.output
    nothing_is_left(ran)


def test_data_larger_than_the_device():
    """8 MiB of data, and a device of 6 MiB: nothing that is asked for is refused."""
    ran = run(
        FED
        + """
model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
t = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda")
x, y = data(32 * 1024, 64)
section("fit")
t.fit(x, y, epochs=1, batch_size=1024, verbose=False)
section("evaluate")
t.evaluate(x, y, batch_size=1024)
section("predict")
print("predicted", model.predict(x, batch_size=1024).shape)
section("fits")
t.fit(x[:256], y[:256], epochs=1, batch_size=128, verbose=False)
section("end")
""",
        MEMORY=6 << 20,
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert not any("refused" in line for line in ran.log)
    assert "predicted (32768, 4)" in ran.output
    for name in ("fit", "evaluate"):
        beside = [line for line in ran.section(name) if line.startswith("HtoD size=270336")]
        assert len(beside) == 32, name
    assert any(line.startswith("HtoD size=65536 ") for line in ran.section("fits"))
    nothing_is_left(ran)


def test_steps_that_call_the_host_are_made_one_by_one():
    ran = run(
        FED
        + """
seen = []
model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
t = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda",
                on_gradients=lambda gradients: seen.append(sorted(gradients)))
section("steps")
fit(Batches(5), t)
t.evaluate(Batches(3))
section("end")
print("seen", len(seen), seen[0], sending())
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert "seen 5 ['0.bias', '0.weight', '2.bias', '2.weight'] False" in ran.output
    nothing_is_left(ran)

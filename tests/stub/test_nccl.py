"""Several processes with a GPU each train one model: gradients go by NCCL, within the graph."""

from __future__ import annotations

import json
import re

import pytest

from tests.stub.harness import Ran, nccl, numbers, run


def together(work: str, processes: int = 2, devices: int = 4, **settings: object) -> Ran:
    """Run a function of `works.py` in processes with a GPU each; prints its results as JSON."""
    script = f"""
    import json
    from fastnn.parallel import meeting
    from tests.stub import works
    meeting.GRACE = 300.0  # a busy machine's processes end by themselves, too, if later
    try:
        found = fnn.parallel.run(works.{work}, processes={processes}, device="cuda")
        print("found", json.dumps(found))
    except fnn.errors.FastnnError as error:
        print(type(error).__name__, error)
    """
    return run(script, preloaded=nccl(), DEVICES=devices, **settings)


def results(ran: Ran) -> list:
    line = next((x for x in ran.output.splitlines() if x.startswith("found ")), None)
    assert line is not None, ran.output
    return json.loads(line.removeprefix("found "))


@pytest.mark.parametrize(("work", "processes"), [("averages", 3), ("averages_wide", 2)])
def test_gradients_become_their_mean_on_all_devices(work: str, processes: int) -> None:
    ran = together(work, processes)
    found = results(ran)
    assert [device for device, _ in found] == [f"cuda:{k}" for k in range(processes)]
    first = found[0][1]
    assert all(steps == first for _, steps in found)
    mean = (processes + 1) / 2
    for turn, values in enumerate(first):
        scaled = sorted(v / (mean * (turn + 1)) for v in values)
        assert max(abs(v - round(v)) for v in scaled) < 1e-4
        assert [round(v) for v in scaled[:3]] == [0, 1, 2]  # of a sum they would be further apart
        assert scaled[-1] > 40
    assert not ran.mistakes


def test_steps_are_graphs_with_the_exchange_in_them() -> None:
    ran = together("trains")
    assert results(ran) == ["cuda:0", "cuda:1"]
    assert not ran.mistakes
    captured = [x for x in ran.log if x.startswith("nccl enqueue") and x.endswith("captured=1")]
    at_once = [x for x in ran.log if x.startswith("nccl enqueue") and x.endswith("captured=0")]
    # of the program for whole batches and for smaller ones, in both ways of feeding; at once the
    # first step of each, and all without graphs
    assert len(captured) >= 4
    assert len(at_once) >= 8
    # in each step all gradients, and the reason to stop
    calls = [numbers(x) for x in ran.log if x.startswith("nccl AllReduce rank=0")]
    steps = 3 * 3 + 6 + 3
    assert sum(x["op"] == 2 for x in calls) == steps
    parameters = 5 * 7 + 7 + 7 * 3 + 3
    assert sum(x["count"] for x in calls if x["op"] == 4) == steps * parameters + 15 * 2 * 7
    assert not any(x.startswith("nccl CommAbort") for x in ran.log)


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (
            "takes_the_same_device",
            "process 1 of 2 failed: OptionError: device: expected the device",
        ),
        ("has_another_model", r"gradients of one model in all processes, got \[\d+, \d+\] numbers"),
        ("has_fewer_steps", "give all processes as many"),
        ("ends_early", "give all processes as many"),
        ("is_killed", r"process 1 of 2 failed: ended without a word \(killed\?\)"),
        ("fails", "process 1 of 2 failed: ValueError: no data here"),
    ],
)
def test_a_process_that_fails_ends_all(work: str, text: str) -> None:
    ran = together(work)
    assert re.search(text, ran.output), ran.output
    assert "ProcessError" in ran.output
    assert not ran.mistakes
    if work in ("has_fewer_steps", "ends_early", "is_killed", "fails"):
        # process 0 is freed of what waits on its device, and needn't be terminated
        assert "nccl CommAbort rank=0" in ran.log, ran.log


def test_a_loss_that_is_not_finite_on_one_device_stops_all_at_the_same_step() -> None:
    ran = together("stops")
    assert "process 1 of 2 failed: NonFiniteError: rank 1: " in ran.output, ran.output


def test_too_few_devices_or_no_nccl_is_said_before_anything_starts() -> None:
    ran = together("trains", processes=3, devices=2)
    assert "OptionError processes: expected at most 2" in ran.output
    script = """
    import sys
    sys.modules["nccl"] = None
    from tests.stub import works
    for options in ({"device": "cuda"}, {"device": "cuda", "method": "fork"}, {"device": "gpu"}):
        try:
            fnn.parallel.run(works.trains, processes=1, **options)
        except fnn.errors.OptionError as error:
            print(error)
        sys.modules.pop("nccl", None)
    """
    ran = run(script, preloaded=nccl(), DEVICES=2)
    assert "nccl4py is not installed: pip install 'nccl4py>=0.6'" in ran.output, ran.output
    assert "expected method='spawn'" in ran.output
    assert "device: expected 'cpu' or 'cuda', got 'gpu'" in ran.output

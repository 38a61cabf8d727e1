"""How the sides of a benchmark take turns, and which rounds count."""

from __future__ import annotations

import os
from typing import Any

import pytest

from benchmarks import distance, harness


@pytest.mark.parametrize("many", [harness.MANY - 1, harness.MANY])
def test_sides_take_turns_after_a_pause(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a turn of many steps begins with some that do not count."""
    done: list[Any] = []
    now = [0.0]
    monkeypatch.setattr(harness.time, "sleep", lambda seconds: done.append("pause"))

    def side(name: str, seconds: float) -> Any:
        def steps(count: int) -> None:
            done.append((name, count))
            now[0] += count * seconds

        return steps

    sides = {"short": side("short", 0.001), "long": side("long", 0.1)}
    found = harness.alternate(sides, 2, 100.0, many, clock=lambda: now[0])
    turn: list[Any] = []
    for name in sides:
        waking = many  # they take no time by the clock that this goes by
        turn += ["pause", *[(name, waking)] * (many == harness.MANY), (name, many)]
    assert done[-2 * len(turn) :] == 2 * turn
    assert found["short"]["median"] == pytest.approx(0.001)
    assert found["long"]["median"] == pytest.approx(0.1)


def test_rounds_with_cores_far_apart_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made up for, unless there are more of them than of the others."""
    monkeypatch.setattr(harness.time, "sleep", lambda seconds: None)
    now, at = [0.0], [0]

    def measured(trips: list[float], turns: int) -> dict[str, float]:
        at[0] = 0

        def trip() -> float:
            at[0] += 1
            return trips[at[0] - 1]

        def steps(count: int) -> None:
            far = 0 < at[0] < len(trips) and max(trips[at[0] - 1 : at[0] + 1]) > 100
            now[0] += count * (0.5 if far else 0.1)

        sides = {"one": steps}
        return harness.alternate(sides, turns, 1e-9, clock=lambda: now[0], trip=trip)["one"]

    found = measured([50, 55, 300, 310, 52, 50, 51], 3)
    assert at[0] == 7
    assert (found["far"], found["round_trip"]) == (3, 51)
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(0.1)
    found = measured([50, 300, 300, 300, 300, 310, 300], 3)
    assert (found["far"], found["median"]) == (0, pytest.approx(0.5))


def test_how_far_cores_are() -> None:
    found = distance.round_trip()
    assert (found > 0) == (len(os.sched_getaffinity(0)) > 1)

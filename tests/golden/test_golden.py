"""Programs and bits are as they were; see `tests/golden/__init__.py`."""

from __future__ import annotations

import dataclasses

import pytest

from fastnn.plan.program import (
    Count,
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
)
from tests.golden import bits, programs
from tests.golden.__main__ import difference
from tests.golden.models import CASES

REMEDY = "If the change is meant, say why in the commit and keep it: python -m tests.golden --write"


@pytest.fixture(scope="module")
def planned() -> dict[str, str]:
    return programs.plan()


@pytest.mark.parametrize("device", programs.DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_programs(name: str, device: str, planned: dict[str, str]) -> None:
    place = f"{name}.{device}"
    before = programs.kept().get(place, "")
    if planned[place] != before:
        pytest.fail(f"{difference(before, planned[place], place)}\n{REMEDY} {name}", pytrace=False)


def test_no_text_is_left_over() -> None:
    assert set(programs.kept()) == {f"{name}.{d}" for name in CASES for d in programs.DEVICES}


def test_the_texts_say_all_of_a_program() -> None:
    """What a program has besides has to be in `text.py`, or changes of it would not show."""
    known = {
        Program: "phases sizes constants places dtype batch carried within",
        PlannedPhase: "groups serial",
        PlannedGroup: "items grain block calls",
        PlannedCall: "kernel operands multiplier scope",
        PlannedRepeat: "length body fresh reverse running",
        Operand: "segment offset dims dtype external buffer per_item strides",
        Count: "first strides",
    }
    for kind, names in known.items():
        assert {field.name for field in dataclasses.fields(kind)} == set(names.split()), kind


@pytest.mark.parametrize("width", bits.widths(), ids=str)
def test_bits_after_ten_steps(width: int | None) -> None:
    """With one worker as kept, on any CPU; of what is not kept for a CPU without fused
    multiply-adds one and three workers agree."""
    now, before = bits.train(1, width), bits.kept().get(bits.target(), {})
    new = [name for name in now if name not in before]
    if new:
        before = {**before, **bits.train(3, width, new)}
    different = sorted(n for n in {**before, **now} if before.get(n) != now.get(n))
    assert not different, f"other bits with {width or 'all'} bits: {different}. {REMEDY}"

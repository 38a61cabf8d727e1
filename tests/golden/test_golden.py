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


def _targets() -> list[tuple[str, int | None]]:
    """Whose bits are compared here: those that are kept for this CPU, the forced width where the
    CPU has it; what is not kept is run all the same."""
    own, forced = bits.target(), bits.target(bits.FORCED)
    found: list[tuple[str, int | None]] = [(own, None)]
    return found if forced == own or forced not in bits.kept() else [*found, (forced, bits.FORCED)]


@pytest.mark.parametrize(
    ("target", "width"),
    _targets(),
    ids=[name if name in bits.kept() else f"{name}: none kept" for name, _ in _targets()],
)
def test_bits_after_ten_steps(target: str, width: int | None) -> None:
    """With one worker as kept; of what is not kept for this CPU one and three workers agree."""
    now, before = bits.train(1, width), bits.kept().get(target, {})
    new = [name for name in now if name not in before]
    if new:
        before = {**before, **bits.train(3, width, new)}
    different = sorted(n for n in {**before, **now} if before.get(n) != now.get(n))
    assert not different, f"other bits on {target}: {different}. {REMEDY}"


def test_bits_are_kept_for_every_cpu_with_avx2() -> None:
    assert f"AVX2, {bits.FORCED} bits" in bits.kept()

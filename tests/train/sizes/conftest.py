"""What tests of sizes are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastnn.engine import plans
from fastnn.plan import sizes
from fastnn.plan.verify import verify


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program that takes over another one's plan is checked as planned ones are."""

    def checked(*given: Any) -> Any:
        program = sizes.resized(*given)
        if program is not None:
            verify(program)
        return program

    monkeypatch.setattr(plans, "resized", checked)
    monkeypatch.setattr(plans, "MOST", 1000)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What makes all programs from here on be planned for themselves."""

    def alone() -> None:
        monkeypatch.setattr(plans, "resized", lambda *_: None)
        monkeypatch.setattr(plans, "EXACT", 10**9)

    return alone

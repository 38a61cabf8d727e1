"""A plugin of pytest's: one process runs a share of the tests.

SHARE=2/8 python -m pytest -p benchmarks.share tests/kernels/cuda

Every process collects all tests and runs each eighth one, so that long files are spread, too.
"""

from __future__ import annotations

import os
from typing import Any


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    number, of = map(int, os.environ["SHARE"].split("/"))
    mine = items[number::of]
    config.hook.pytest_deselected(items=[item for k, item in enumerate(items) if k % of != number])
    items[:] = mine


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    if exitstatus == 5:  # a share may be empty
        session.exitstatus = 0

"""Mini-batches that are balanced by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.train.slices import balanced
from tests.train.models import fresh, state, vectors

LABELS = np.repeat([3, 7, 9], [80, 15, 5])


@pytest.mark.parametrize("epoch", range(5))
def test_each_run_has_one_of_each_class(epoch: int) -> None:
    order = balanced(4, epoch, LABELS)
    assert order.dtype == np.int64
    assert len(order) == len(LABELS)
    drawn = LABELS[order]
    for begin in range(0, 99, 3):
        assert sorted(drawn[begin : begin + 3]) == [3, 7, 9]
    # every sample of the rare classes, none twice as often as another; no frequent one twice
    for label, least, most in ((9, 6, 7), (7, 2, 3), (3, 0, 1)):
        counts = np.bincount(order, minlength=100)[label == LABELS]
        assert least <= counts.min()
        assert counts.max() <= most
    assert (order == balanced(4, epoch, LABELS)).all()
    assert (order != balanced(4, epoch + 1, LABELS)).any()


def test_a_run_and_its_resume(tmp_path: Path) -> None:
    x, y = vectors(61)
    options: dict[str, Any] = {"batch_size": 8, "shuffle": "balanced", "verbose": False}
    whole, first, again, other = (fresh("mlp", optimizer="sgd") for _ in range(4))
    whole.fit(x, y, epochs=2, **options)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "run")
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **options)
    assert state(again) == state(whole)
    other.fit(x, y, epochs=2, **{**options, "shuffle": True})
    assert state(other) != state(whole)
    with pytest.warns(UserWarning, match="shuffle was 'balanced' and is True"):
        fresh("mlp", optimizer="sgd").fit(
            x, y, epochs=2, resume=tmp_path / "run", **{**options, "shuffle": True}
        )


def test_what_is_no_order_or_no_class_is_refused() -> None:
    x, y = vectors(20)
    trainer = fresh("mlp", optimizer="sgd")
    with pytest.raises(OptionError, match="shuffle: expected True, False or 'balanced', got 'by"):
        trainer.fit(x, y, shuffle="by class", verbose=False)
    with pytest.raises(OptionError, match=r"expected targets that are one class for each sample"):
        trainer.fit(x, np.eye(4, dtype=np.float32)[y], shuffle="balanced", verbose=False)

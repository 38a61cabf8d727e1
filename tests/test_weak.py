"""References that keep nothing alive say what is wrong where their object is gone."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from fastnn import nn
from fastnn.engine.predictor import Predictor
from fastnn.nn.method import Method
from fastnn.nn.structure import Watch
from fastnn.weak import weak, weakly


class Part:
    whole: weak[Any] = weak()
    call: Any


class Whole:
    def __init__(self) -> None:
        self.part = Part()
        self.part.whole = self
        self.part.call = weakly(self.answer)

    def answer(self, number: int) -> int:
        return number + 1


def test_a_part_with_its_whole() -> None:
    whole = Whole()
    assert whole.part.whole is whole
    assert whole.part.call(1) == 2


def test_a_part_whose_whole_is_gone() -> None:
    part = Whole().part
    with pytest.raises(ReferenceError, match=r"^a Part \(whole\) was used after .*; keep a ref"):
        part.whole  # noqa: B018
    with pytest.raises(ReferenceError, match=r"^Whole\.answer of a part was used after"):
        part.call(1)


def test_what_a_model_keeps_without_the_model() -> None:
    model = nn.Linear(3, 2)
    method, watch = Method(model, lambda module: module.forward), Watch(model)
    predictor = Predictor(weakref.ref(model))
    predictor(np.zeros((1, 3), np.float32))
    del model
    with pytest.raises(ReferenceError, match=r"^a method of a module was used after"):
        method.forward  # noqa: B018
    with pytest.raises(ReferenceError, match=r"^what watches a module was used after"):
        watch.accept()
    with pytest.raises(ReferenceError, match=r"^a model's predictor was used after"):
        predictor.model  # noqa: B018

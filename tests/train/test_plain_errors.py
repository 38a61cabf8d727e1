"""Numbers that float32 can't hold, models without parameters, any array, lines of warnings."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import errors, nn, ops
from fastnn.errors import DataError, FastnnError, OptionError

X = np.random.default_rng(0).normal(size=(8, 4))
Y = np.arange(8) % 3


def beyond(place: int) -> np.ndarray:
    x = X.copy()
    x[place, 1] = -1e39
    return x


USES: dict[str, Callable[[nn.Module, np.ndarray], Any]] = {
    "predict": lambda model, x: model.predict(x),
    "predict, in batches": lambda model, x: model.predict(x, batch_size=3),
    "a step": lambda model, x: fnn.compile(model, "cross_entropy")(x, Y),
    "its loss": lambda model, x: fnn.compile(model, "cross_entropy").evaluate(x, Y),
    "gradients": lambda model, x: fnn.compile(model, "cross_entropy").gradients(x, Y),
    "fit": lambda model, x: fnn.Trainer(model, "cross_entropy").fit(x, Y, verbose=False),
    "evaluate": lambda model, x: fnn.Trainer(model, "cross_entropy").evaluate(x, Y),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", [0, 7])
def test_data_beyond_float32(use: str, place: int) -> None:
    """(Warnings are errors here: NumPy's would come for a conversion to infinity.)"""
    model = nn.Linear(4, 3)
    before = model.state_dict()
    with pytest.raises(DataError, match=r"x0.*expected numbers within float32's range.*float64"):
        USES[use](model, beyond(place))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    USES[use](model, X)


def test_float64_holds_them() -> None:
    assert np.isfinite(nn.Linear(4, 3).to("float64").predict(beyond(3))).all()


CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "array": lambda x: x + np.array([1.0, 2.0, 1e39, 3.0]),
    "times": lambda x: x * 1e39,
    "plus": lambda x: x - 1e39,
    "where": lambda x: ops.where(x > 0, x, -1e300),
    "a loss's weights": lambda x: nn.CrossEntropyLoss(weight=[1, 1, 1e39, 1])(x, x),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_beyond_float32(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return CONSTANTS[name](x)

    with pytest.raises(FastnnError, match="expected numbers within float32's range"):
        Model().predict(X)
    assert np.isfinite(Model().to("float64").predict(np.abs(X))).all()
    Model().summary((4,), print_fn=len)


def test_infinite_constants_are_meant() -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return ops.where(x > 0, x, -np.inf)

    assert np.isneginf(Model().predict(-np.abs(X))).all()


def test_model_without_parameters() -> None:
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm(4, affine=False))
    for train in (
        lambda: fnn.Trainer(model, "mse").fit(X, X, verbose=False),
        lambda: fnn.compile(model, "mse")(X, X),
    ):
        with pytest.raises(OptionError, match=r"Sequential has no parameters.*nothing to train"):
            train()
    assert np.isfinite(fnn.Trainer(model, "mse").evaluate(X, X)["loss"])
    frozen = nn.Sequential(nn.Linear(4, 4)).freeze()
    with pytest.raises(OptionError, match=r"all are frozen; thaw some with model.unfreeze"):
        fnn.compile(frozen, "mse")(X, X)


class Wrapped:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return X.astype(dtype or np.float64)


def test_model_called_with_any_array_predicts() -> None:
    model = nn.Linear(4, 3)
    wanted = model.predict(X)
    for given in (X, Wrapped(), memoryview(X), X.tolist()):
        np.testing.assert_array_equal(model(given), wanted)
    for wrong in ("abc", None, object()):
        with pytest.raises(FastnnError):
            model(wrong)


def test_warnings_name_the_line_that_led_to_them(tmp_path: Path) -> None:
    def trainer() -> fnn.Trainer:
        return fnn.Trainer(nn.Linear(4, 3), "cross_entropy", device="cpu")

    first, path = trainer(), tmp_path / "run.safetensors"
    first.fit(X, Y, batch_size=4, verbose=False)
    first.save(path)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer().fit(X, Y, batch_size=3, epochs=2, verbose=False, resume=path)
        line = inspect.currentframe().f_lineno - 1
    assert [(w.filename, w.lineno) for w in found] == [(__file__, line)]
    with pytest.warns(UserWarning, match="^so$") as direct:
        errors.warn("so")
    assert direct[0].filename == __file__


class Sparse:
    """What scipy's matrices look like: they have a shape and rows, and are no arrays."""

    shape = (8, 4)

    def toarray(self) -> np.ndarray:
        return X

    def __iter__(self) -> Any:
        return iter(X)

    def __len__(self) -> int:
        return 8


def test_sparse_matrices() -> None:
    trainer = fnn.Trainer(nn.Linear(4, 3), "cross_entropy")
    for use in (
        lambda x: trainer.fit(x, Y, verbose=False),
        lambda x: trainer.evaluate(x, Y),
        lambda x: trainer.predict(x),
        lambda x: trainer.fit(x, verbose=False),
        lambda x: trainer.fit(X, Y, validation=(x, Y), verbose=False),
    ):
        with pytest.raises(DataError, match=r"expected a dense array, got Sparse; .*toarray\(\)"):
            use(Sparse())


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02\x8a\n"])
def test_files_of_torch_save(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(begin + bytes(200))
    with pytest.raises(errors.CheckpointError, match=r"one of torch.save.*load_state_dict"):
        nn.Linear(4, 3).load(path)

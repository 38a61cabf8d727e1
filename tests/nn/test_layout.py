"""The layout of a model by one option: channels last in its inputs and outputs, the same parameters
and results, nothing transposed for it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError, ShapeError
from fastnn.testing.null import null_device

RNG = np.random.default_rng(0)


def moved(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


class Written(nn.Module):
    """Code that counts axes in PyTorch's order."""

    def __init__(self) -> None:
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.fc = nn.Linear(7 * 5 * 6, 2)

    def forward(self, x: Any) -> Any:
        y = self.norm(ops.tanh(self.conv(x)))
        joined = ops.concatenate(y, x, axis=1)
        return self.fc(ops.flatten(joined)), joined, {"mean": ops.mean(y, axis=(2, 3))}


class Timed(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv1d(3, 4, 3, stride=2)
        self.norm = nn.InstanceNorm1d(4, affine=True)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        y, ends = self.conv(x, lengths=lengths)
        return ops.relu(self.norm(y)), ends


class Cut(nn.Module):
    """Sequences that are cut, joined and lengthened behind a convolution."""

    def __init__(self) -> None:
        self.conv = nn.Conv1d(3, 4, 3, padding=2)

    def forward(self, x: Any) -> Any:
        y = self.conv(x)[:, :, :-2]
        gate, value = ops.split(y, 2, axis=1)
        joined = ops.concatenate(ops.sigmoid(gate) * value, x, axis=1)
        return joined[:, ::2], ops.pad(y, ((0, 0), (0, 0), (1, 0)))


IMAGES = (2, 3, 5, 6)
MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "classifier": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(4 * 2 * 3, 5),
        ),
        IMAGES,
    ),
    "image to image": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.ConvTranspose2d(4, 3, 3, 2, 1), nn.Sigmoid()
        ),
        IMAGES,
    ),
    "made of numbers": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(90, 24), nn.Reshape(4, 2, 3), nn.Upsample(4)),
        IMAGES,
    ),
    "a layer": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 9)),
    "inside another": (
        lambda: nn.Sequential(nn.Sequential(nn.AvgPool1d(2), nn.Identity()), nn.PReLU()), (2, 3, 8)
    ),
    "code": (Written, IMAGES),
    "gated": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.GLU(axis=1)), (2, 3, 9)),
    "cut": (Cut, (2, 3, 9)),
    "places of maxima": (lambda: nn.MaxPool2d(2, return_indices=True), IMAGES),
    "places in sequences": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 2), nn.MaxPool1d(2, return_indices=True)), (2, 3, 9)
    ),
}  # fmt: skip


def arrays(found: Any) -> list[np.ndarray]:
    if isinstance(found, dict):
        return [*found.values()]
    return [a for f in found for a in arrays(f)] if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_channels_first(name: str) -> None:
    make, shape = MODELS[name]
    model, last = make(), make().to(channels="last")
    last.load_state_dict(model.state_dict())
    x = RNG.normal(size=shape).astype(np.float32)
    wanted, got = arrays(model.predict(x)), arrays(last.predict(moved(x)))
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(moved(one) if one.ndim > 2 else one, other)
    assert last.state_dict().keys() == model.state_dict().keys()
    again = arrays(last.to(channels="first").predict(x))
    np.testing.assert_array_equal(again[0], wanted[0])


def test_training_is_the_same() -> None:
    make, _ = MODELS["classifier"]
    model, last = make(), make().to(channels="last")
    last.load_state_dict(model.state_dict())
    x, t = RNG.normal(size=(8, 3, 5, 6)).astype(np.float32), RNG.integers(0, 5, 8)
    steps = [fnn.compile(m, "cross_entropy", optim.SGD(lr=0.1)) for m in (model, last)]
    for _ in range(3):
        losses = [float(step(a, t)) for step, a in zip(steps, (x, moved(x)), strict=True)]
        assert losses[0] == losses[1]
    for one, other in zip(model.state_dict().values(), last.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lengths_stay_as_they_are() -> None:
    model, last = Timed(), Timed().to(channels="last")
    last.load_state_dict(model.state_dict())
    x, lengths = RNG.normal(size=(3, 3, 9)).astype(np.float32), np.array([9, 4, 7])
    (y, ends), (other, others) = model.predict(x, lengths), last.predict(moved(x), lengths=lengths)
    np.testing.assert_array_equal(ends, others)
    np.testing.assert_array_equal(moved(y), other)


def test_nothing_is_transposed() -> None:
    def copies(channels: str, *shape: int) -> int:
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), channels=channels
        )
        with null_device() as null:
            model.predict(np.zeros((2, *shape), np.float32))
        return str(null.programs[-1]).count("copy_strided")

    assert copies("last", 8, 9, 3) == 0
    assert copies("first", 3, 8, 9) == 2

    with null_device() as null:
        model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.GTU(axis=1), nn.Conv1d(2, 3, 3))
        model.to(channels="last").predict(np.zeros((2, 9, 3), np.float32))
    assert "copy_strided" not in str(null.programs[-1])


def test_copies_and_files_keep_it(tmp_path: Any) -> None:
    make, shape = MODELS["classifier"]
    model = make().to(channels="last")
    x = moved(RNG.normal(size=shape).astype(np.float32))
    wanted = model.predict(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(x), wanted)
    model.save(tmp_path / "model.safetensors")
    first = make().load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(first.predict(np.moveaxis(x, -1, 1)), wanted)


def test_what_is_shown() -> None:
    model = nn.Sequential(nn.ReLU(), channels="last")
    assert repr(model) == "Sequential(channels='last'\n  (0): ReLU()\n)"
    assert repr(nn.Conv1d(1, 2, 3).to(channels="last")).endswith("kernel_size=3, channels='last')")
    assert repr(nn.ReLU().to(channels="last")) == "ReLU(channels='last')"


def test_what_is_refused() -> None:
    image = np.zeros((2, 8, 8, 3), np.float32)
    for make in (
        lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, channels="last"), channels="last"),
        lambda: nn.Sequential(
            nn.ReLU(), nn.Sequential(nn.ReLU(), channels="last"), channels="last"
        ),
    ):
        with pytest.raises(
            OptionError, match=r"last': its layer '1' .* has channels='last' of its"
        ):
            make().predict(image)
    with pytest.raises(OptionError, match=r"'last': it \(Conv2d\) has channels='last' of its own"):
        nn.Conv2d(3, 4, 3, channels="last").to(channels="last").predict(image)
    steps = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Permute(2, 1), nn.GRU(4, 4), channels="last")
    with pytest.raises(
        OptionError, match=r"expected an output with channels, got one of shape \(2"
    ):
        steps.predict(image[0, :2, :6])  # as many steps as channels behind the convolution
    with pytest.raises(
        ShapeError, match=r"expected 3 channels, last, got input of shape \(2, 3, 8, 8\); .* pass"
    ):
        nn.Sequential(nn.Conv2d(3, 4, 3), channels="last").predict(np.moveaxis(image, -1, 1))
    for call in (lambda: nn.ReLU().to(channels="lst"), lambda: nn.Sequential(channels="lst")):
        with pytest.raises(OptionError, match="expected channels 'first' or 'last', got 'lst'"):
            call()


def test_parts_that_see_to_it_themselves() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            self.spell, self.conv = nn.CharCNN(30, filters=8), nn.Conv1d(8, 4, 3)

        def forward(self, characters: Any) -> Any:
            return self.conv(ops.transpose(self.spell(characters), (0, 2, 1)))

    model = Tagger()
    ids = RNG.integers(0, 30, (2, 6, 5))
    wanted = model.predict(ids)
    np.testing.assert_array_equal(model.to(channels="last").predict(ids), moved(wanted))

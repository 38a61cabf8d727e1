"""Weights from elsewhere: PyTorch's state dicts and safetensors."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastnn import nn
from fastnn.errors import CheckpointError, DataError

RNG = np.random.default_rng(8)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3), nn.Linear(3, 2))


def given(prefix: str = "") -> dict[str, np.ndarray]:
    arrays = {n: RNG.normal(size=a.shape).astype("f4") ** 2 for n, a in net().state_dict().items()}
    arrays["1.num_batches_tracked"] = np.array(7)
    return {prefix + n: a for n, a in arrays.items()}


def same(model: nn.Module, arrays: dict[str, np.ndarray], prefix: str = "") -> bool:
    return all(np.array_equal(a, arrays[prefix + n]) for n, a in model.state_dict().items())


class Tensor:
    """What a tensor of another library looks like."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.array


def test_a_state_dict_with_more_than_the_model_needs():
    model, arrays = net(), given()
    result = model.load_state_dict(OrderedDict((n, Tensor(a)) for n, a in arrays.items()))
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert same(model, arrays)
    other = given("encoder.body.")
    model.load_state_dict({**other, "decoder.weight": np.ones(3)}, prefix="encoder.body.")
    assert same(model, other, "encoder.body.")
    with pytest.raises(DataError, match=r"no name begins with 'encoder\.head\.'"):
        model.load_state_dict(other, prefix="encoder.head.")


def test_what_is_missing_and_unexpected():
    model, arrays = net(), given()
    before = model.state_dict()
    del arrays["0.bias"]
    arrays["head.weight"] = np.ones(3)
    with pytest.raises(DataError, match=r"missing '0.bias'; unexpected 'head.weight'.*strict"):
        model.load_state_dict(arrays)
    assert same(model, before)
    result = model.load_state_dict(arrays, strict=False)
    assert result == (["0.bias"], ["head.weight"])
    assert same(model, {**arrays, "0.bias": before["0.bias"]})
    for strict in (True, False):
        with pytest.raises(DataError, match=r"'0.weight': expected shape \(3, 4\), got \(4, 3\)"):
            model.load_state_dict({**arrays, "0.weight": np.ones((4, 3))}, strict=strict)
    with pytest.raises(DataError, match="none of"):
        model.load_state_dict({"x": np.ones(3)}, strict=False)
    for bad in (np.ones((3, 4), complex), [["a"] * 4] * 3, np.ma.masked_equal(np.ones((3, 4)), 1)):
        with pytest.raises(DataError, match=r"0\.weight"):
            model.load_state_dict({**given(), "0.weight": bad})
    assert same(model, {**arrays, "0.bias": before["0.bias"]})


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_safetensors_of_others(tmp_path, kind):
    arrays = {n: np.ascontiguousarray(a.astype(kind)) for n, a in given("net.").items()}
    path = tmp_path / "theirs.safetensors"
    save_file(arrays, path)
    model = net().load(path, prefix="net.")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, arrays["net." + name].astype("f4"))
    with pytest.raises(CheckpointError, match=r"theirs.safetensors.*missing '0.weight'"):
        net().load(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"theirs\.safetensors"):
        net().load(path, prefix="net.")


def test_our_own_file_for_a_part_of_a_model(tmp_path):
    model = net()
    model.save(tmp_path / "m.safetensors")
    body = nn.Linear(4, 3).load(tmp_path / "m.safetensors", prefix="0.")
    np.testing.assert_array_equal(body.weight.value, model[0].weight.value)
    wider = nn.Sequential(*net().layers, nn.Linear(2, 2))
    wider.load(tmp_path / "m.safetensors", strict=False)
    np.testing.assert_array_equal(wider[2].weight.value, model[2].weight.value)


@pytest.mark.peers
def test_pytorchs_modules_give_the_same_predictions(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    from safetensors.torch import save_file as save_tensors

    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    )
    x = RNG.normal(size=(16, 4)).astype("f4")
    theirs(torch.tensor(x))  # running statistics
    want = theirs.eval()(torch.tensor(x)).detach().numpy()
    ours = net()
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_allclose(ours.predict(x), want, rtol=1e-4, atol=1e-5)
    ours[0].weight.value = theirs[0].weight  # a tensor that wants a gradient
    save_tensors(theirs.bfloat16().state_dict(), tmp_path / "t.safetensors")
    rounded = net().load(tmp_path / "t.safetensors")
    for name, array in rounded.state_dict().items():
        np.testing.assert_array_equal(array, theirs.state_dict()[name].float().numpy())
    ours.load_state_dict(theirs.state_dict())
    assert same(ours, rounded.state_dict())


def test_numbers_that_a_parameter_cannot_hold_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    model.store("float32")
    before = model.state_dict()
    words = r"parameter '1.bias': expected numbers within float32's range.*got -1e\+300"
    with pytest.raises(DataError, match=words):
        model[1].bias.value = [-1e300]
    with pytest.raises(DataError, match=words):
        model.load_state_dict({"0.weight": np.ones((1, 2)), "1.bias": [-1e300]}, strict=False)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    model.to("float64")
    model[1].bias.value = [-1e300]
    with pytest.raises(DataError, match=words):
        model.to("float32")
    assert model[1].bias.value[0] == -1e300
    assert model.predict(np.zeros((1, 2)))[0, 0] <= -1e299
    model[1].bias.value = [np.inf]  # what is no number may be put there
    assert np.isinf(model.to("float32")[1].bias.value[0])


@pytest.mark.peers
def test_pytorch_reads_a_models_file_as_it_is(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    from safetensors.torch import load_file

    ours, path = net(), tmp_path / "ours.safetensors"
    ours.load_state_dict(given())
    ours.save(path)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    )
    theirs.load_state_dict(load_file(path))
    x = RNG.normal(size=(16, 4)).astype("f4")
    want = theirs.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.predict(x), want, rtol=1e-4, atol=1e-5)


def test_weights_of_layers_that_carry_more_or_fewer_states(tmp_path: Path) -> None:
    """A net that was trained on many streams writes one text: its weights, and no state of them."""

    def net(streams: int) -> nn.Module:
        return nn.Sequential(nn.LSTM(3, 4, stateful=streams), nn.BatchNorm(4), nn.Linear(4, 2))

    x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32)
    many, one, file = net(5), net(1), tmp_path / "model.safetensors"
    many.predict(x)
    many.save(file)
    with pytest.raises(DataError, match="another number of sequences are left out: strict=False"):
        one.load_state_dict(many.state_dict())
    with pytest.raises(CheckpointError, match="or load it into the model with strict=False"):
        one.load(file)
    one.predict(x[:1])  # leaves a state
    assert one.load_state_dict(many.state_dict(), strict=False) == ([], [])
    other = net(1).load(file, strict=False)
    many[0].reset_state()
    want = many.predict(x)[:1]
    for found in (one, other):
        np.testing.assert_allclose(found.predict(x[:1]), want, rtol=1e-5, atol=1e-6)
    changed = {**many.state_dict(), "2.weight": np.zeros((3, 2))}
    with pytest.raises(DataError, match=r"2\.weight"):  # other arrays have to fit
        one.load_state_dict(changed, strict=False)

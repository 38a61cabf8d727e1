"""Choice of device, and what is said where CUDA can't be had."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError
from fastnn.runtime import _cuda, devices

WITHOUT = pytest.mark.skipif(_cuda.available(), reason="CUDA can be used here")


@WITHOUT
def test_cuda_is_refused_with_its_reason(monkeypatch):
    assert not fnn.cuda.is_available()
    assert fnn.cuda.device_count() == 0
    reason = fnn.cuda.reason()
    assert "driver" in reason or "not installed" in reason
    with pytest.raises(OptionError, match=r"^device='cuda' cannot be used: .*; use device='cpu'"):
        fnn.Trainer(nn.Linear(2, 1), "mse", device="cuda")
    with pytest.raises(OptionError, match=r"^device='cuda:1' cannot be used"):
        nn.Linear(2, 1).to("cuda:1")
    monkeypatch.setenv("FASTNN_DEVICE", "cuda")
    with pytest.raises(OptionError, match=r"^FASTNN_DEVICE='cuda' cannot be used"):
        fnn.compile(nn.Linear(2, 1), "mse")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:-1", 3])
def test_unknown_devices_are_refused(name):
    with pytest.raises(OptionError, match=r"^device: expected 'auto', 'cpu', 'cuda' or 'cuda:1'"):
        devices.choose(name)


def test_the_environment_stands_for_auto(monkeypatch):
    monkeypatch.setenv("FASTNN_DEVICE", "cpu")
    assert devices.choose("auto") == "cpu"
    monkeypatch.setenv("FASTNN_DEVICE", "gpu")
    with pytest.raises(OptionError, match=r"^FASTNN_DEVICE: expected 'auto', 'cpu'"):
        devices.choose("auto")
    assert devices.choose("cpu") == "cpu"


@WITHOUT
def test_the_fallback_is_said_once(caplog):
    devices._automatic.cache_clear()
    with caplog.at_level(logging.INFO, "fastnn"):
        assert [devices.choose("auto") for _ in range(3)] == ["cpu"] * 3
    (record,) = caplog.records
    assert record.getMessage() == f"fastnn runs on the CPU, because {fnn.cuda.reason()}"


def test_a_missing_device_is_named_with_those_that_are_there(monkeypatch):
    monkeypatch.setattr(devices, "cuda_reason", lambda: "")
    monkeypatch.setattr(devices.machine, "device_count", lambda: 2)
    monkeypatch.setattr(devices.machine, "device_name", lambda k: f"GPU {k}")
    monkeypatch.setattr(devices._cuda, "too_old", lambda k: "")
    assert devices.choose("cuda") == "cuda:0"
    assert devices.choose("cuda:1") == "cuda:1"
    with pytest.raises(OptionError, match=r"one of cuda:0 \(GPU 0\), cuda:1 \(GPU 1\)"):
        devices.choose("cuda:2")


def test_cuda_means_the_first_device_that_is_new_enough(monkeypatch):
    monkeypatch.setattr(devices, "cuda_reason", lambda: "")
    monkeypatch.setattr(devices.machine, "device_count", lambda: 3)
    monkeypatch.setattr(devices._cuda, "too_old", lambda k: "too old" if k == 0 else "")
    assert devices.choose("cuda") == "cuda:1"
    assert devices.choose("cuda:2") == "cuda:2"
    with pytest.raises(OptionError, match=r"cuda:0.*cannot be used: too old"):
        devices.choose("cuda:0")


def test_a_model_on_the_cpu_has_no_device_arrays():
    model = nn.Linear(3, 2).to("cpu")
    assert not hasattr(model.weight, "__cuda_array_interface__")
    np.testing.assert_array_equal(np.from_dlpack(model.weight), model.weight.value)
    with pytest.raises(OptionError, match="on_device: the model is on the CPU"):
        model.predict(np.zeros((4, 3), np.float32), on_device=True)

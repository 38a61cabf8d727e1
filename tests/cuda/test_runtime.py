"""The CUDA runtime on programs made by hand: memory, coherence, stops, errors."""

from __future__ import annotations

import ctypes
import signal

import numpy as np
import pytest

from fastnn import nn
from fastnn.engine.arrays import as_arrays, check_finite
from fastnn.errors import DataError, DeviceError, OutOfMemoryError, ProgramError
from fastnn.interrupts import uninterrupted
from fastnn.kernels import control_block
from fastnn.ops.declare import apply_effect
from fastnn.runtime.cuda import machine
from fastnn.runtime.cuda.array import interface
from fastnn.runtime.cuda.simulated import SimulatedGpu
from tests.cuda.programs import build, runtime


def doubled(graph):
    x = graph.leaf("w", (5,), "params", offset=0)
    apply_effect(graph, "cuda_test_scale", x=x, factor=2.0)
    return {"w": x}


@pytest.mark.parametrize("graphs", [True, False])
def test_steps_change_memory_on_the_device_and_the_host_sees_it(graphs):
    run = runtime(graphs=graphs)
    weight = run.store.parameters["weight"]
    weight.value = np.arange(5.0)[None]
    bound = run.bind(build(doubled))
    polls = []
    run.run([(bound, 3)], lambda: polls.append(run.control.copy()))
    assert run.store.away
    assert run.control[control_block.STEP] == 3
    np.testing.assert_array_equal(bound.view("w"), 8 * np.arange(5.0))
    np.testing.assert_array_equal(np.array(weight)[0], 8 * np.arange(5.0))
    assert run.store.away  # looking sends nothing back
    weight.value[0, 1] = 100.0  # taking for writing does
    run.run([(bound, 1)], lambda: None)
    np.testing.assert_array_equal(weight.value[0], [0, 200, 32, 48, 64])
    assert not run.store.away


class Counting(SimulatedGpu):
    """A simulated device that replays what it has captured, and counts."""

    def __init__(self):
        super().__init__(0)
        self.captures = self.replays = 0

    def capture(self, launches, places):
        launches = list(launches)
        assert len(launches) == len(places)
        self.captures += 1

        def replay():
            self.replays += 1
            for launch in launches:
                launch()

        return replay


def test_a_program_is_captured_once_and_replayed(monkeypatch):
    device = Counting()
    monkeypatch.setattr("fastnn.runtime.cuda.execute.gpu", lambda name: device)
    run = runtime()
    bound = run.bind(build(doubled))
    for steps in (1, 3, 4):
        run.run([(run.bind(bound.program), steps)], lambda: None)
    assert (device.captures, device.replays) == (1, 7)
    assert run.control[control_block.STEP] == 8


def test_steps_sent_ahead_of_a_stop_change_nothing():
    run = runtime()
    run.store.parameters["weight"].value = np.ones((1, 5))
    bound = run.bind(build(lambda graph: {}, limit=7))
    run.run([(bound, 100)], lambda: None)
    assert run.control[control_block.STEP] == 7
    assert run.control[control_block.STOP] == control_block.NOT_FINITE


def test_an_exception_ends_the_run_at_a_step(monkeypatch):
    monkeypatch.setattr("fastnn.runtime.cuda.execute.EVERY", 0.01)
    run = runtime()
    weight = run.store.parameters["weight"]
    weight.value = np.full((1, 5), 2.0**-100)
    bound = run.bind(build(doubled))

    def interrupt():
        if run.control[control_block.STEP] > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run([(bound, 10**6)], interrupt)
    assert 3 < run.control[control_block.STEP] < 10**5
    np.testing.assert_array_equal(np.log2(weight.value), run.control[control_block.STEP] - 100.0)


def test_a_failing_device_is_an_error_not_another_device(monkeypatch):
    run = runtime()
    bound = run.bind(build(doubled))

    def fail():
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    bound.parts[0].send = fail
    monkeypatch.setattr(type(run.gpu), "works", lambda self: False)
    with pytest.raises(DeviceError, match=r"cuda:0 .* failed: CUDA_ERROR_ILLEGAL_ADDRESS.*resume"):
        run.run([(bound, 2)], lambda: None)


def test_out_of_memory_says_what_to_do(monkeypatch):
    def full(self, size):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    run = runtime()
    program = build(doubled)
    monkeypatch.setattr(SimulatedGpu, "_allocate", full)
    monkeypatch.setattr(machine, "memory_info", lambda number: (3 * 2**20, 2**30))
    with pytest.raises(OutOfMemoryError) as caught:
        run.bind(program)
    assert str(caught.value) == (
        "cuda:0 (Numba's simulator) is out of memory: 256 bytes were requested for 'params', "
        "3.0 MiB of 1.0 GiB are free; use a smaller model, or dtype='float32', free what else "
        "is on the device, or use device='cpu'"
    )
    assert isinstance(caught.value, MemoryError)


def test_a_store_is_used_on_two_devices_in_turn():
    first, second = runtime(), None
    second = type(first)("cuda:1", first.store, (), 1, True)
    weight = first.store.parameters["weight"]
    weight.value = np.ones((1, 5))
    program = build(doubled)
    bounds = first.bind(program), second.bind(program)
    for _ in range(2):
        first.run([(bounds[0], 1)], lambda: None)
        second.run([(bounds[1], 1)], lambda: None)
    np.testing.assert_array_equal(weight.value, np.full((1, 5), 16.0))


def test_segments_saved_on_the_device_are_put_back():
    run = runtime(slots=("moment",))
    run.memory["slots/moment"].fill(3.0)
    saved = run.save(["params", "slots/moment"])
    before = np.array(run.store.parameters["weight"])
    run.run([(run.bind(build(doubled)), 2)], lambda: None)
    run.memory["slots/moment"].fill(4.0)
    run.restore(saved)
    np.testing.assert_array_equal(run.store.parameters["weight"].value, before)
    assert (run.memory["slots/moment"] == 3.0).all()


def test_a_kernel_without_a_twin_is_named():
    def fill(graph):
        with graph.inside_scope("encoder"):
            apply_effect(graph, "cuda_test_lonely", x=graph.leaf("w", (5,), "params", offset=0))
        return {}

    with pytest.raises(ProgramError, match=r"layer 'encoder': kernel 'cuda_test_lonely' has no"):
        runtime().bind(build(fill))


class Foreign:
    """An array "on the device" of another library."""

    def __init__(self, array, strides=None):
        self.array, self.reads = array, 0
        self.strides = strides

    @property
    def __cuda_array_interface__(self):
        return interface(self.array.ctypes.data, self.array.shape, self.array.dtype, self.strides)


def test_foreign_arrays_are_used_where_they_lie():
    raw = np.arange(12, dtype=np.float32).reshape(4, 3)
    x = as_arrays(Foreign(raw), "x", "inputs")
    assert len(x) == 4
    assert x.specs[0].shape == (3,)
    source = x.sources()["data/x0"]
    run = runtime()
    run.provide("data/x0", source)
    segment = run.memory.segments["data/x0"]
    assert segment.on(run.gpu).address == raw.ctypes.data
    np.testing.assert_array_equal(np.asarray(x.take(slice(1, 3)).arrays[0]), raw[1:3])
    check_finite(x, "inputs", "float32")
    run.provide("data/x0", np.zeros((4, 3), np.float32))  # does not write to the foreign one
    run.memory.segments["data/x0"].on(run.gpu)
    assert raw[3, 2] == 11


def test_foreign_arrays_have_to_be_contiguous():
    with pytest.raises(DataError, match=r"inputs: expected a C-contiguous array on the device"):
        as_arrays(Foreign(np.zeros((4, 3), np.float32), (4, 16)), "x", "inputs")


def test_parameters_are_seen_by_other_libraries():
    model = nn.Linear(3, 2)
    assert not hasattr(model.weight, "__cuda_array_interface__")
    np.testing.assert_array_equal(np.from_dlpack(model.weight), model.weight.value)
    model.to("cuda")
    seen = model.weight.__cuda_array_interface__
    assert seen["shape"] == (2, 3)
    assert model.weight.__dlpack_device__() == (2, 0)
    place = (ctypes.c_float * 6).from_address(seen["data"][0])
    strides = seen["strides"] or (12, 4)
    theirs = np.lib.stride_tricks.as_strided(np.frombuffer(place, np.float32), (2, 3), strides)
    np.testing.assert_array_equal(theirs, model.weight.value)
    model.weight.__cuda_array_interface__  # noqa: B018  (they may write from now on)
    theirs[1, 2] = 7.0
    assert model.weight.value[1, 2] == 7.0


def test_ctrl_c_waits_for_the_end_of_a_single_step():
    done = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == [True]
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

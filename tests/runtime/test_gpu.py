"""The code for real devices, on stand-ins for `cuda.core` and the driver: no device is needed.

The stand-ins take only calls that the real ones have (`test_the_real_packages_have_it_all`).
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from fastnn.errors import DeviceError, OutOfMemoryError
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan.branches import Place as Branch
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import compiler, exchange, gpu, machine
from fastnn.runtime.cuda.device import ALIGNMENT
from fastnn.runtime.cuda.place import Place

#: what is used of `cuda.core`, by class
USED = {
    "Device": ["set_current", "create_stream", "allocate", "create_graph_builder", "sync", "name",
               "compute_capability", "get_all_devices"],
    "Stream": ["sync", "record", "handle"],
    "Event": ["sync", "handle"],
    "Buffer": ["fill", "handle"],
    "ObjectCode": ["from_cubin", "from_ptx", "get_kernel"],
    "Kernel": ["handle"],
    "graph.GraphBuilder": ["begin_building", "end_building", "complete"],
    "graph.Graph": ["upload", "launch"],
}  # fmt: skip
DRIVER = [
    "cuMemHostAlloc", "cuMemFreeHost", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
    "cuMemcpyDtoDAsync", "cuMemGetInfo", "cuKernelSetAttribute", "cuKernelGetAttribute",
    "cuMemAlloc", "cuMemFree", "cuMemsetD8Async", "cuEventRecord", "cuStreamWaitEvent",
    "cuStreamQuery", "cuDeviceGetMemPool", "cuMemPoolTrimTo",
]  # fmt: skip
needs_packages = pytest.mark.skipif(
    not _cuda.installed() or _cuda.simulated(), reason="the CUDA packages are not installed"
)


@needs_packages
def test_the_real_packages_have_it_all():
    core, driver = _cuda.core(), _cuda.driver()
    import cuda.core.graph as graph

    for name, attributes in USED.items():
        kind = getattr(graph if "." in name else core, name.rpartition(".")[2])
        assert [a for a in attributes if not hasattr(kind, a)] == [], name
    assert [f for f in DRIVER if not hasattr(driver, f)] == []
    core.LaunchConfig(grid=(2, 1, 1), block=(32, 1, 1), shmem_size=8, is_cooperative=False)
    core.EventOptions(blocking_sync=True, timing_enabled=True)
    assert driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED


class Memory:
    """A device's memory in the host's, and a stand-in for the driver."""

    CUfunction_attribute = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES=1, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED=14,
    )  # fmt: skip

    def __init__(self):
        self.kept, self.asked, self.status, self.static = [], [], 0, 0

    def new(self, size):
        self.kept.append((ctypes.c_uint8 * size)(*([0xAB] * min(size, 64))))
        return ctypes.addressof(self.kept[-1])

    def cuMemHostAlloc(self, size, flags):
        return 0, self.new(size)

    def cuMemFreeHost(self, address):
        return (0,)

    def copy(self, target, source, size, stream):
        ctypes.memmove(target, source, size)
        return (0,)

    cuMemcpyHtoDAsync = cuMemcpyDtoHAsync = cuMemcpyDtoDAsync = copy

    def cuKernelGetAttribute(self, attribute, kernel, device):
        return 0, {1: self.static}[attribute]

    def cuStreamQuery(self, stream):
        return (self.status,)

    def cuDeviceGetMemPool(self, device):
        return 0, "pool"

    def cuMemPoolTrimTo(self, pool, keep):
        self.asked.append(("trim", pool, keep))
        return (0,)

    def cuKernelSetAttribute(self, attribute, value, kernel, device):
        self.asked.append((attribute, value, kernel, device))
        return (0,)


class Core:
    """Stands for `cuda.core`: launches and graphs are written down in `log`."""

    def __init__(self, memory):
        self.memory, self.log, self.full = memory, [], False
        stream = SimpleNamespace(
            handle=7, sync=lambda: self.log.append("sync"),
            record=lambda options: SimpleNamespace(sync=lambda: self.log.append("event")),
        )  # fmt: skip
        self.stream = stream

    def Device(self, number):
        return SimpleNamespace(
            set_current=lambda: None, create_stream=lambda: self.stream, allocate=self.allocate,
            create_graph_builder=self.builder, sync=lambda: None, name="a stand-in",
            compute_capability=(9, 0),
        )  # fmt: skip

    def allocate(self, size, *, stream):
        if self.full:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        address = self.memory.new(size)
        return SimpleNamespace(
            handle=address, fill=lambda value, *, stream: ctypes.memset(address, value, size)
        )

    def builder(self):
        made = SimpleNamespace(name="builder", stream=SimpleNamespace(handle=8))
        made.begin_building = lambda: made
        made.end_building = lambda: self.log.append("end")
        made.complete = lambda: SimpleNamespace(
            upload=lambda stream: self.log.append("upload"),
            launch=lambda stream: self.log.append("graph"),
        )
        return made

    def LaunchConfig(self, **options):
        return options

    EventOptions = SimpleNamespace

    class ObjectCode:
        @staticmethod
        def from_cubin(code):
            return SimpleNamespace(get_kernel=lambda name: SimpleNamespace(handle=11))

    def launch(self, target, config, kernel, *arguments):
        self.log.append((target is self.stream, config["grid"], [type(a) for a in arguments]))


@pytest.fixture
def device(monkeypatch):
    memory = Memory()
    core = Core(memory)
    monkeypatch.setattr(_cuda, "simulated", lambda: False)
    monkeypatch.setattr(_cuda, "core", lambda: core)
    monkeypatch.setattr(_cuda, "driver", lambda: memory)
    monkeypatch.setattr(machine, "memory_info", lambda number: (1, 2))
    monkeypatch.setattr(compiler, "code", lambda *variant: compiler.Code(b"", ""))
    return gpu.Gpu(0)


def test_memory_and_copies(device):
    piece = device.allocate(40, "work")
    assert piece.size == ALIGNMENT
    found = device.pinned(40)
    device.download(piece, found)
    assert not found.any()  # new memory is zero
    given = np.arange(5.0)
    device.upload(given, piece)
    other = device.allocate(40, "work")
    device.duplicate(piece, other, 16, 8)
    seen = np.zeros(5)
    device.download(other, seen)
    np.testing.assert_array_equal(seen, [0, 0, 1, 0, 0])
    device.download(piece, seen[:2], 24)
    np.testing.assert_array_equal(seen[:2], [3, 4])
    device.core.full = True
    for name, remedy in (
        ("work", "lower batch_size, or the length of sequences, free what else is"),
        ("slots/exp_avg", r"choose an optimizer that keeps less \(optim.SGD .*, or use a"),
        ("copy of params", "use a smaller model, or dtype='float32', free what else is"),
        ("constant", "use smaller constants in the model, free what else is"),
        ("control", "are free; free what else is on the device, or use device='cpu'"),
    ):
        with pytest.raises(OutOfMemoryError, match=remedy):
            device.allocate(40, name)


def test_a_device_with_no_memory_for_a_kernel(device, monkeypatch):
    def full(code):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")

    monkeypatch.setattr(device.core, "ObjectCode", SimpleNamespace(from_ptx=full), raising=False)
    with pytest.raises(DeviceError, match=r"cuda:0 .* cannot be used now: CUDA_ERROR_OUT.*nvidia"):
        machine.clusters_at_once(0, 16, 1 << 16)


def test_launches_and_graphs(device):
    topics.load("cuda")
    kernel = CUDA_KERNELS["affine"]
    place = Place(device.allocate(24, "work"), 0, (2, 3), "float32")
    operands = {"x": place, "y": place, "scale": 2.0, "shift": 0.5}
    launch = device.prepared(kernel, "float32", "", operands)
    launch()
    numbers = [np.int64] * 6 + [np.float32] * 2
    assert device.core.log == [(True, (1, 1, 1), numbers)]
    replay = device.capture([launch, launch], [Branch(0, ()), Branch(0, ())])
    assert device.core.log[1:] == [(False, (1, 1, 1), numbers)] * 2 + ["end", "upload"]
    replay()
    launch()
    assert device.core.log[-2:] == ["graph", (True, (1, 1, 1), numbers)]
    device.mark()()
    assert device.core.log[-1] == "event"


def test_shared_memory_beyond_48_kib_is_asked_for(device):
    device.code(CUDA_KERNELS["affine"], "float32", "", 100, 8)
    assert device.driver.asked == []
    for shared in (60_000, 50_000, 70_000):
        device.code(CUDA_KERNELS["affine"], "float32", "", shared, 8)
    assert device.driver.asked == [(8, 60_000, 11, 0), (8, 70_000, 11, 0)]


def test_static_shared_memory_counts_against_what_needs_no_asking(device):
    device.driver.static = 4096
    for shared in (45_056, 45_057):
        device.code(CUDA_KERNELS["affine"], "float32", "", shared, 8)
    assert device.driver.asked == [(8, 45_057, 11, 0)]


def test_a_full_device_is_asked_again_once_its_pool_is_trimmed(device):
    device.core.full = True
    with pytest.raises(OutOfMemoryError):
        device.allocate(40, "work")
    assert device.driver.asked == [("trim", "pool", 0)]


def test_a_launch_without_items_does_nothing(device):
    topics.load("cuda")
    operands = {
        "x": Place(device.allocate(0, "work"), 0, (0, 3), "float32"),
        "y": Place(device.allocate(0, "work"), 0, (0, 3), "float32"),
        "scale": 2.0, "shift": 0.5,
    }  # fmt: skip
    device.prepared(CUDA_KERNELS["affine"], "float32", "", operands)()
    assert device.core.log == []


@pytest.mark.parametrize(("status", "words"), [(0, "can go on"), (700, "any more")])
def test_a_failed_launch_says_whether_the_process_can_go_on(device, status, words):
    topics.load("cuda")
    place = Place(device.allocate(24, "work"), 0, (2, 3), "float32")
    operands = {"x": place, "y": place, "scale": 2.0, "shift": 0.5}

    def refuse(*arguments):
        raise RuntimeError("CUDA_ERROR_INVALID_VALUE")

    device.core.launch, device.driver.status = refuse, status
    launch = device.prepared(CUDA_KERNELS["affine"], "float32", "", operands)
    with pytest.raises(DeviceError, match=f"'affine'.*{words}"):
        launch()


def test_what_a_copy_reads_lives_until_the_next_wait(device):
    piece = device.allocate(400, "work")
    device.upload(np.arange(100.0)[::2], piece)
    assert [source.size for source in device._sources] == [50]
    device.sync()
    assert device._sources == []
    for _ in range(gpu.MOST_SOURCES):
        device.upload(np.arange(3.0), piece)
    assert "sync" not in device.core.log[1:]
    device.upload(np.arange(3.0), piece)  # one more than may wait
    assert device._sources == []


def test_a_failing_driver_is_said(device):
    class Failure:
        name = "CUDA_ERROR_ILLEGAL_ADDRESS"

        def __int__(self):
            return 700

    device.driver.cuMemcpyHtoDAsync = lambda *arguments: (Failure(),)
    with pytest.raises(DeviceError, match=r"cuda:0 \(a stand-in\) failed: CUDA_ERROR_ILLEGAL"):
        device.upload(np.zeros(3), device.allocate(24, "work"))


def test_neighbours_are_exchanged_in_one_call(device):
    piece = device.allocate(400, "grads")
    places = [
        Place(piece, offset, dims, dtype)
        for offset, dims, dtype in (
            (72, (2,), "float64"), (16, (2, 3), "float32"), (64, (2,), "float32"),
            (0, (4,), "float32"),
        )
    ]  # fmt: skip
    begin = piece.address
    want = [(begin, 10, "float32"), (begin + 64, 2, "float32"), (begin + 72, 2, "float64")]
    assert exchange.joined(places) == want

"""Limits and faults of devices, and several devices, on a stand-in for the driver."""

from __future__ import annotations

import pytest

from tests.stub.harness import numbers, run

TAGGER = """
class Tagger(nn.Module):
    def __init__(self, layer, width):
        self.layer, self.out = layer, nn.Linear(width, 4)
    def forward(self, x):
        return self.out(self.layer(x)[0])

def fit(model, x, y, batch, device="cuda", epochs=2, dtype="float32"):
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device=device, dtype=dtype)
    trainer.fit(x, y, epochs=epochs, batch_size=batch, verbose=False)
    return trainer
"""
MLP = "nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))"


def test_shared_memory_near_the_default_limit_is_asked_for():
    """Static and dynamic shared memory together count against the 48 KiB that need no asking."""
    ran = run(
        TAGGER
        + """
for hidden in (208, 224):
    x, y = data(16, 2, 8, steps=(2,))
    fit(Tagger(nn.RNN(8, hidden), hidden), x, y, 16, epochs=1)
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    launches = [numbers(line) for line in ran.log if line.startswith("Launch")]
    both = [x["shared"] + x["static"] for x in launches if x["shared"] <= 48 * 1024 and x["static"]]
    assert any(total > 48 * 1024 for total in both)  # such launches are among them


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_block_with_99_kib_of_shared_memory(dtype: str):
    ran = run(
        TAGGER
        + f"""
fit({MLP}, *data(64, 20), 32, dtype="{dtype}")
wide = nn.Sequential(
    nn.Linear(1024, 6000), nn.Softmax(), nn.Linear(6000, 256), nn.Linear(256, 9000)
)
fit(wide, *data(300, 1024), 300, dtype="{dtype}")
x, y = data(8, 2, 8, steps=(2,))
for hidden in (256, 768):
    fit(Tagger(nn.LSTM(8, hidden), hidden), x, y, 8, epochs=1, dtype="{dtype}")
""",
        SHARED=101376,
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []


@pytest.mark.parametrize(("clusters", "largest"), [(7, 16), (3, 8), (0, 8)])
def test_clusters_are_as_large_as_the_device_can_place(clusters: int, largest: int):
    """The driver is asked: a group of sequences has a cluster of 16 blocks where as many run at
    once as there are groups (four here), else one of eight."""
    ran = run(
        TAGGER
        + """
x, y = data(16, 2, 8, steps=(2,))
fit(Tagger(nn.LSTM(8, 64), 64), x, y, 16, epochs=1)
""",
        CLUSTERS=clusters,
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    launches = [numbers(line) for line in ran.log if line.startswith("Launch")]
    assert max(launch["cluster"] for launch in launches) == largest


def test_auto_takes_no_device_that_is_too_old():
    ran = run(
        f"""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
print("device", fnn.Trainer({MLP}, "cross_entropy").device)
try:
    fnn.Trainer({MLP}, "cross_entropy", device="cuda")
except fnn.errors.OptionError as error:
    print("refused:", error)
""",
        CC="7.5",
    )
    assert ran.status == 0, ran.output
    assert "device cpu" in ran.output
    assert "7.5" in ran.output.split("device cpu")[0]  # the reason, in the log
    assert "refused: " in ran.output
    assert "8.0" in ran.output


def test_a_driver_older_than_the_packages_is_refused_with_the_remedy():
    """It would take none of the kernels' code."""
    ran = run(
        f"""
print("device", fnn.Trainer({MLP}, "cross_entropy").device)
print(fnn.cuda.reason())
""",
        DRIVER=11080,
    )
    assert ran.status == 0, ran.output
    assert "device cpu\nthe NVIDIA driver is one of CUDA 11.8, and the installed" in ran.output
    assert "newer driver, or packages for this one, pip install 'numba-cuda" in ran.output


def test_a_device_that_cannot_be_had_now_is_an_error_with_the_remedy():
    """Others have it alone (46), or all of its memory (2)."""
    for status, said in ((46, "unavailable at the current time"), (2, "unable to allocate")):
        ran = run(
            f"""
for use in (lambda: fnn.Trainer({MLP}, "cross_entropy", device="cuda"),
            lambda: {MLP}.to("cuda").predict(data(3, 20)[0])):
    try:
        use()
    except fnn.errors.DeviceError as error:
        print("refused:", error)
""",
            CONTEXT=status,
        )
        assert ran.status == 0, ran.output
        texts = [line for line in ran.output.splitlines() if line.startswith("refused:")]
        assert len(texts) == 2
        assert all("cuda:0 (stand-in 0)" in text and said in text for text in texts)
        assert all("nvidia-smi" in text and "device='cpu'" in text for text in texts)


def test_auto_takes_the_cpu_where_no_device_can_be_had_now():
    ran = run(
        f"""
import logging
logging.basicConfig(level=logging.INFO)
trainer = fnn.Trainer({MLP}, "cross_entropy")
trainer.fit(*data(8, 20), epochs=1, verbose=False)
print("on", trainer.device)
""",
        CONTEXT=46,
    )
    assert ran.status == 0, ran.output
    assert "on cpu" in ran.output
    assert "fastnn runs on the CPU, because cuda:0 (stand-in 0) cannot be used now" in ran.output


def test_an_older_device_beside_a_newer_one_is_passed_over_and_limits_nothing():
    ran = run(
        f"""
from fastnn.runtime.cuda import machine
print([fnn.Trainer({MLP}, "cross_entropy", device=d).device for d in ("auto", "cuda")])
print(machine.block_limits())
""",
        DEVICES=3, CC="7.5,9.0,8.9", SHARED="65536,232448,101376",
    )  # fmt: skip
    assert ran.status == 0, ran.output
    assert "['cuda:1', 'cuda:1']\n(132, 101376, 1, 0)" in ran.output


def test_two_devices_in_two_threads():
    ran = run(
        TAGGER
        + f"""
import threading
from concurrent.futures import ThreadPoolExecutor
x, y = data(64, 20)
def work(number):
    fit({MLP}, x, y, 16, device=f"cuda:{{number}}")
    return number
with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(work, (0, 1, 0, 1))))
model = {MLP}
fit(model, x, y, 16, "cuda:1")
model.to("cuda:0").predict(x)
fit(model, x, y, 16, "cuda:1")
""",
        DEVICES=2,
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    made = [numbers(x) for x in ran.log if x.startswith("MemAlloc")]
    assert {line["device"] for line in made} == {0, 1}


def test_any_thread_may_run_a_model_and_drop_it():
    ran = run(
        TAGGER
        + f"""
import gc, threading
trainer = fit({MLP}, *data(64, 20), 16)
def thread(work):
    threads = [threading.Thread(target=work)]
    threads[0].start()
    threads[0].join()
thread(lambda: trainer.model.predict(data(64, 20)[0]))
step = fnn.compile({MLP}, "cross_entropy", optim.SGD(0.1), device="cuda")
for _ in range(3):
    thread(lambda: step(*data(16, 20)))
def drop():
    global trainer, step
    del trainer, step
    gc.collect()
thread(drop)
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert any(line.startswith("MemFreeHost") for line in ran.log)


def test_a_run_that_sends_nothing_has_the_devices_context_in_its_thread():
    """Each run has a thread of its own, and what is sent makes the device current, too."""
    ran = run(
        TAGGER
        + f"""
runtime = fit({MLP}, *data(64, 20), 16).session.runtime
(bound,) = runtime._acquired
runtime.run([(bound, 1)], lambda: None)
section("again")
runtime.run([(bound, 1)], lambda: None)
section("after")
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    log = ran.section("again")
    assert any("Launch" in line for line in log)
    assert not any(line.startswith("HtoD") for line in log)


def test_a_device_that_is_full_gives_back_what_its_pool_keeps():
    """Each model fits alone, but not beside what was freed before. (There is little data: whether
    that fits is asked before, which may trim the pool, too.)"""
    ran = run(
        """
import gc
for width in (1000, 1200, 1400):
    x = rng.standard_normal((20, width)).astype(np.float32)
    model = nn.Linear(width, width)
    trainer = fnn.Trainer(model, "mse", device="cuda")
    trainer.fit(x, x, epochs=1, batch_size=10, verbose=False)
    del trainer, model
    gc.collect()
""",
        MEMORY=80_000_000,
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    refused = next(k for k, line in enumerate(ran.log) if line.endswith(" refused"))
    assert numbers(ran.log[refused + 2])["freed"] > 0  # once the device was waited for


def test_a_device_without_room_says_what_to_lower_and_stays_usable():
    ran = run(
        TAGGER
        + f"""
try:
    fit({MLP}, *data(100_000, 20), 100_000)
except fnn.errors.OutOfMemoryError as error:
    print("full:", error)
fit({MLP}, *data(100, 20), 16)
import gc; gc.collect()
section("emptied")
fnn.cuda.empty_cache()
section("after")
print("free", fnn.cuda.memory()[0] > 0)
""",
        MEMORY=2_000_000,
    )
    assert ran.status == 0, ran.output
    assert "full: cuda:0" in ran.output
    assert "free True" in ran.output
    (trimmed,) = (x for x in ran.section("emptied") if x.startswith("MemPoolTrimTo"))
    assert numbers(trimmed)["freed"] > 0


@pytest.mark.parametrize("launch", [5, 60])
def test_a_device_lost_in_the_middle(launch: int):
    ran = run(
        TAGGER
        + f"""
try:
    fit({MLP}, *data(640, 20), 16, epochs=20)
except fnn.errors.DeviceError as error:
    print("lost:", error)
""",
        LOST=launch,
    )
    assert ran.status == 0, ran.output
    assert "lost: cuda:0" in ran.output
    assert "can't use the device any more" in ran.output


def test_a_launch_that_is_refused_leaves_the_device_usable():
    ran = run(
        """
from fastnn.kernels.declare import cuda_kernel
from fastnn.kernels.cuda.device import cuda
from fastnn.runtime.cuda.gpu import gpu
from fastnn.runtime.cuda.place import Place

device = gpu("cuda:0")
device.use()

@cuda_kernel(launch=lambda s: ((1, 70_000), 32))
def too_many_blocks(x: "inout rows f[R]"):
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i] += 1

piece = device.allocate(400, "work")
operands = {"x": Place(piece, 0, (100,), "float32")}
import fastnn.kernels.declare as declare
launch = device.prepared(declare.CUDA_KERNELS["too_many_blocks"], "float32", "", operands)
try:
    launch()
except fnn.errors.DeviceError as error:
    print("refused:", error)
""",
    )
    assert ran.status == 0, ran.output
    assert "refused: " in ran.output
    assert "too_many_blocks" in ran.output
    assert "go on" in ran.output
    assert "any more" not in ran.output

"""Models trained on a stand-in for the driver: every call is one that the real one would take."""

from __future__ import annotations

import pytest

from fastnn.kernels.convolution.cuda_choice import SHAPES
from fastnn.kernels.declare import CUDA_KERNELS
from tests.stub.harness import Ran, numbers, run

MODELS = """
from fastnn.kernels.cuda.device import cuda

def fit(name, model, x, y, batch, **options):
    section(name)
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda", **options)
    trainer.fit(x, y, epochs=2, batch_size=batch, verbose=False)
    trainer.evaluate(x, y, batch_size=batch)
    model.predict(x)

class Tagger(nn.Module):
    def __init__(self, layer, width):
        self.layer, self.out = layer, nn.Linear(width, 4)
    def forward(self, x):
        return self.out(self.layer(x)[0])

class Loop(nn.Module):
    def __init__(self):
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 4)
    def forward(self, x):
        def body(x, h):
            h = self.cell(x, h)
            return h, h
        ys, _ = ops.loop(body, x, ops.zeros_state(x, 8))
        return self.out(ys)

def images():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.AvgPool2d(1), nn.Flatten(),
                         nn.Linear(6, 4))

def tiled():
    return nn.Sequential(nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(32, 64, 3, padding=1), nn.GlobalAvgPool2d(), nn.Linear(64, 4))

class Attending(nn.Module):
    def __init__(self):
        self.layer, self.out = nn.TransformerEncoderLayer(6, 2, 12), nn.Linear(6, 4)
    def forward(self, x):
        return self.out(self.layer(x))

@fnn.kernel
def halved_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = 0.5 * x[i]

@fnn.kernel
def halved_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        dx[i] = 0.5 * dy[i]

def threads(s):
    return (s["N"] * s["C"] + 127) // 128, 128

@fnn.cuda_kernel(launch=threads, name="halved_forward")
def halved_forward_cuda(x: "in rows f[N,C]", y: "out rows f[N,C]"):
    i = cuda.grid(1)
    if i < x.size:
        y[i // x.shape[1], i % x.shape[1]] = 0.5 * x[i // x.shape[1], i % x.shape[1]]

@fnn.cuda_kernel(launch=threads, name="halved_backward")
def halved_backward_cuda(dy: "in rows f[N,C]", dx: "out rows f[N,C]"):
    i = cuda.grid(1)
    if i < dx.size:
        dx[i // dx.shape[1], i % dx.shape[1]] = 0.5 * dy[i // dx.shape[1], i % dx.shape[1]]

halved = fnn.define_op("halved", halved_forward, halved_backward,
                       cuda=(halved_forward_cuda, halved_backward_cuda))

class Halved(nn.Module):
    def forward(self, x):
        return halved(x)

def mlp():
    return nn.Sequential(nn.Linear(20, 16), nn.BatchNorm(16), nn.ReLU(), nn.Dropout(0.5),
                         nn.Linear(16, 4))

fit("mlp", mlp(), *data(50, 20), 16)
fit("mlp launched one by one", mlp(), *data(50, 20), 16, graphs=False)
for kind in (nn.RNN, nn.LSTM, nn.GRU):
    fit(kind.__name__, Tagger(kind(6, 8), 8), *data(8, 7, 6, steps=(7,)), 4)
fit("bidirectional", Tagger(nn.LSTM(6, 8, bidirectional=True), 16), *data(8, 7, 6, steps=(7,)), 4)
fit("wider than a cluster", Tagger(nn.LSTM(6, 512), 512), *data(4, 3, 6, steps=(3,)), 2)
fit("a large cluster", Tagger(nn.LSTM(6, 256), 256), *data(16, 3, 6, steps=(3,)), 16)
fit("16 bits", Tagger(nn.GRU(6, 256), 256), *data(16, 3, 6, steps=(3,)), 16, precision="fp16")
fit("steps of an LSTM", Tagger(nn.LSTM(6, 2048), 2048), *data(4, 3, 6, steps=(3,)), 2)
fit("loop", Loop(), *data(8, 5, 6, steps=(5,)), 4)
fit("convolutions", images(), *data(16, 2, 9, 8), 8, precision="bf16")
fit("tiles", tiled(), *data(32, 2, 16, 16), 16)
fit("depthwise", nn.Sequential(nn.Conv1d(6, 6, 3, groups=6), nn.GlobalAvgPool1d(), nn.Linear(6, 4)),
    *data(16, 6, 12), 8)
fit("sinc", nn.Sequential(nn.SincConv(4, 31), nn.GlobalMaxPool1d(), nn.Linear(4, 4)),
    *data(16, 1, 60), 8)
fit("attention", Attending(), *data(8, 7, 6, steps=(7,)), 4, precision="fp16")
fit("an op of the user's", nn.Sequential(nn.Linear(20, 16), Halved(), nn.Linear(16, 4)),
    *data(50, 20), 16)
section("CTC")
labels = rng.integers(1, 5, (8, 3))
net = nn.Sequential(nn.Linear(6, 5))
fnn.Trainer(net, nn.CTCLoss(), optim.Adam(1e-3), device="cuda").fit(
    data(8, 12, 6)[0], labels, epochs=2, batch_size=4, verbose=False)
for beam in (0, 3):
    nn.CTCDecoder(list("_abcd"), beam=beam).to("cuda").predict(data(8, 12, 5)[0])
section("single steps")
step = fnn.compile(mlp(), "cross_entropy", optim.SGD(0.1), device="cuda")
for _ in range(4):
    step(*data(16, 20))
"""


@pytest.fixture(scope="module")
def ran() -> Ran:
    return run(MODELS)


def test_everything_runs_and_nothing_is_refused(ran: Ran):
    assert ran.status == 0, ran.output
    assert ran.mistakes == []


@pytest.mark.parametrize(
    "name",
    ["mlp", "RNN", "LSTM", "GRU", "bidirectional", "loop", "convolutions", "tiles", "attention",
     "CTC", "an op of the user's"],
)  # fmt: skip
def test_a_step_is_one_graph_from_the_second_on(ran: Ran, name: str):
    log = ran.section(name)
    captured = [line for line in log if "captured=1" in line]
    ends = [numbers(line)["nodes"] for line in log if line.startswith("EndCapture")]
    assert ends
    assert sum(ends) == len(captured)
    assert sum(line.startswith("GraphLaunch") for line in log) >= 2


def test_recurrent_nets_wait_for_each_other_only_where_all_blocks_run_at_once(ran: Ran):
    def largest(section: str, kind: str) -> int:
        return max(numbers(x)[kind] for x in ran.section(section) if x.startswith("Launch"))

    for name in ("RNN", "LSTM", "GRU", "bidirectional"):
        assert largest(name, "cluster") == 2, name
        assert largest(name, "cooperative") == 0, name
    assert largest("a large cluster", "cluster") == largest("16 bits", "cluster") == 16
    assert largest("wider than a cluster", "cooperative") == 1
    assert largest("wider than a cluster", "cluster") == 1
    launches = [x for x in ran.section("steps of an LSTM") if x.startswith("Launch")]
    assert launches
    assert not any(numbers(line)["cooperative"] for line in launches)


def test_without_graphs_nothing_is_captured(ran: Ran):
    log = ran.section("mlp launched one by one")
    assert any(line.startswith("Launch") for line in log)
    made = [x for x in log if "Graph" in x and "Destroy" not in x]  # another section's may end here
    assert not [x for x in log if "Capture" in x] + made


def test_all_memory_streams_events_and_graphs_are_given_back(ran: Ran):
    left = ran.left
    assert {k: left[k] for k in ("blocks", "streams", "events", "graphs")} == {
        "blocks": 0, "streams": 0, "events": 0, "graphs": 0,
    }  # fmt: skip


def test_a_steps_graph_has_few_nodes():
    """Of the plain classifier with Adam and the guard; programs say what they are."""
    ran = run(
        """
import os
os.environ["FASTNN_POISON"] = "0"  # which fills memory by launches of its own
for precision in ("highest", "bf16", "fp16"):
    section(precision)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    rule = optim.Adam(1e-3)
    trainer = fnn.Trainer(model, "cross_entropy", rule, device="cuda", precision=precision)
    trainer.fit(*data(384, 784, classes=10), epochs=1, batch_size=128, verbose=False)
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    for precision, most in (("highest", 12), ("bf16", 12), ("fp16", 12)):
        ends = [x for x in ran.section(precision) if x.startswith("EndCapture")]
        assert [numbers(x)["nodes"] for x in ends] == [most], precision


def test_weights_in_16_bits_are_copied_once_a_run():
    """The updates write them, too; whoever has changed parameters since the last run has not."""
    ran = run(
        """
import os
os.environ["FASTNN_POISON"] = "0"
model = nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4))
trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda", precision="bf16",
                      graphs=False)
for steps in (2, 6, 10):
    section(f"{steps} steps")
    trainer.fit(*data(16 * steps, 20), epochs=1, batch_size=16, verbose=False)
section("after")
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    two, six, ten = (
        sum(line.startswith("Launch") for line in ran.section(f"{steps} steps"))
        for steps in (2, 6, 10)
    )
    assert ten - six == six - two
    assert two - (six - two) // 2 == 1


def test_a_function_of_the_host_stands_between_two_graphs():
    """However long steps take, by which chunks are cut: here each would be one of its own."""
    ran = run(
        """
from fastnn.runtime.cuda import execute
execute.CHUNK = 0.0
calls = []
def hook(gradients):
    section(f"hook {len(calls)}")
    calls.append([array.shape for array in gradients.values()])
    gradients["0.bias"][...] = 1.0
    section("after")
model = nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4))
trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-3), device="cuda", on_gradients=hook)
trainer.fit(*data(64, 20), epochs=1, batch_size=16, verbose=False)
step = fnn.compile(model, "cross_entropy", optim.SGD(0.1), device="cuda", on_gradients=hook)
for _ in range(3):
    step(*data(16, 20))
print(calls[0], len(calls))
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert "[(8, 20), (8,), (4, 8), (4,)] 7" in ran.output
    log = ran.log[ran.log.index("# hook 2") : ran.log.index("# hook 3")]
    words = [line.split()[0] for line in log if not line.startswith("#")]
    assert words[:7] == ["HtoD"] * 4 + ["GraphLaunch"] * 2 + ["DtoH"]
    assert words[7:] == ["StreamSynchronize", *["DtoH", "StreamSynchronize"] * 4]
    left = ran.left
    assert {k: left[k] for k in ("blocks", "graphs")} == {"blocks": 0, "graphs": 0}


def test_what_does_not_wait_for_each_other_stands_side_by_side_in_the_graph():
    """The two directions of a net, and weights' gradients beside what goes on backwards."""
    ran = run(
        """
import os
os.environ["FASTNN_POISON"] = "0"
class Tagger(nn.Module):
    def __init__(self):
        self.net, self.out = nn.LSTM(6, 8, bidirectional=True), nn.Linear(16, 4)
    def forward(self, x):
        return self.out(self.net(x)[0])
section("step")
trainer = fnn.Trainer(Tagger(), "cross_entropy", optim.Adam(1e-3), device="cuda")
trainer.fit(*data(16, 7, 6, steps=(7,)), epochs=1, batch_size=4, verbose=False)
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    log = ran.section("step")
    waits = [line.split(" after ")[1] for line in log if line.startswith("Node")]
    depth: list[int] = []
    for nodes in waits:
        before = [] if nodes == "-" else [int(n) for n in nodes.split(",")]
        depth.append(1 + max((depth[n] for n in before), default=0))
    assert max(depth) < 0.6 * len(depth)
    launches = [x for x in log if x.startswith("Launch") and "captured=1" in x]
    together = [k for k, x in enumerate(launches) if numbers(x)["cluster"] > 1]
    assert len(together) == 4
    assert depth[together[0]] == depth[together[1]]  # forward in time, and backward
    assert depth[together[2]] == depth[together[3]]
    ends = [numbers(line) for line in log if line.startswith("EndCapture")]
    assert [end["forked"] > 0 for end in ends] == [True]


def test_between_iterations_of_full_batch_methods_few_words_cross_the_bus():
    """The stand-in runs no kernel, so the script ends each iteration after some turns."""
    ran = run(
        """
from fastnn.engine.session import Session
from fastnn.kernels.descent import gauss_newton, search
turns, run_steps = [0], Session.run

def run(self, segments, poll):
    reason = run_steps(self, segments, poll)
    turns[0] += 1
    state = self.totals[len(self.totals) - size :]
    state[gauss_newton.WANTED] = second and turns[0] % 2
    if turns[0] % 4 == 0:
        state[search.OUTCOME], state[search.PHASE] = search.DONE, search.READY
    return reason

Session.run = run
for method, optimizer in (("line", optim.LBFGS(history_size=1)), ("newton", optim.HessianFree())):
    size, second = optimizer.state_size, method == "newton"
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4))
    trainer = fnn.Trainer(model, "cross_entropy", optimizer, device="cuda")
    mark = fnn.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: section(f"{method} {epoch}")
    )
    trainer.fit(*data(50, 20), epochs=4, callbacks=[mark], verbose=False)
    section("after")
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    for method in ("line", "newton"):
        log = ran.section(f"{method} 2")
        assert sum(line.startswith("GraphLaunch") for line in log) >= 4
        moved = [numbers(line)["size"] for line in log if line.startswith(("HtoD", "DtoH"))]
        assert moved
        assert max(moved) < 4 * 30 * 20  # not the parameters


def test_convolutions_by_the_tile_of_products(ran: Ran):
    """Its slices lie in dynamic shared memory, where windows begin in static."""
    kernels = [CUDA_KERNELS[f"convolution_{name}_tile"] for name in
               ("forward", "backward_input", "backward_weight")]  # fmt: skip
    (shared,) = {4 * kernel.shared({}) for kernel in kernels}
    found = [numbers(x)["static"] for x in ran.section("tiles") if f" shared={shared} " in x]
    assert len(set(found)) == 3  # the three kernels have different tables
    assert all(static >= 16 * SHAPES[""].rows for static in found)

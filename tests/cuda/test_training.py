"""Whole trainings on the device (or in the simulator) beside the CPU's: the same losses.

Sums have another order on a GPU, so numbers agree to rounding: TOLERANCE is for losses of float32
over a few steps. Models are tiny, because a simulated thread is a coroutine of Python's.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.diagnostics import signals
from fastnn.errors import DataError, NonFiniteError
from fastnn.kernels.cuda.device import cuda
from fastnn.runtime.cuda.array import DeviceArray, interface

TOLERANCE = 2e-5


def vectors(samples, classes=3):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(samples, 5)).astype(np.float32)
    return x, np.abs(x[:, :classes]).argmax(axis=1)


def mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def regularised():
    return nn.Sequential(
        nn.Linear(5, 6, bias=False), nn.BatchNorm(6), nn.Tanh(), nn.Dropout(0.4), nn.LayerNorm(6),
        nn.Linear(6, 3),
    )  # fmt: skip


class Sequences(nn.Module):
    """Ids of sequences of different lengths through an embedding and an LSTM."""

    def __init__(self):
        self.embed = nn.Embedding(7, 4)
        self.lstm = nn.LSTM(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, ids, lengths):
        _, ((last, _),) = self.lstm(self.embed(ids), lengths=lengths)
        return self.out(last)


def sentences(samples):
    rng = np.random.default_rng(2)
    ids, lengths = rng.integers(0, 7, (samples, 4)), rng.integers(1, 5, samples)
    return (ids, lengths), ids[:, 0] % 3


MODELS = {
    "mlp": (mlp, vectors, optim.SGD(lr=0.1, momentum=0.9)),
    "regularised": (regularised, vectors, optim.AdamW(lr=0.02, clip_global_norm=0.5)),
    "sequences": (Sequences, sentences, optim.Adam(lr=0.02)),
}


def trainer_for(name, device, **options):
    model, _, optimizer = MODELS[name]
    return fnn.Trainer(
        model(), "cross_entropy", optimizer, metrics=["accuracy"], device=device, seed=4, **options
    )


@pytest.mark.parametrize("name", MODELS)
def test_training_gives_the_cpus_losses(name):
    x, y = MODELS[name][1](8)
    found = {}
    for device in ("cpu", "cuda"):
        trainer = trainer_for(name, device)
        history = trainer.fit(
            x, y, epochs=2, batch_size=5, validation=(x, y), verbose=False
        ).history
        outputs = trainer.predict(*(x if isinstance(x, tuple) else (x,)), batch_size=5)
        found[device] = history, outputs, trainer.get_parameters(), trainer.step
    (cpu, cpu_out, cpu_state, steps), (gpu, gpu_out, gpu_state, gpu_steps) = found.values()
    assert steps == gpu_steps == 4
    for key in cpu:
        np.testing.assert_allclose(gpu[key], cpu[key], rtol=TOLERANCE, err_msg=key)
    np.testing.assert_allclose(gpu_out, cpu_out, rtol=1e-4, atol=1e-5)
    for key, value in cpu_state.items():
        np.testing.assert_allclose(gpu_state[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_run_is_repeatable_to_the_bit():
    x, y = vectors(8)
    states = []
    for graphs in (True, False):
        trainer = trainer_for("regularised", "cuda", graphs=graphs)
        trainer.fit(x, y, epochs=1, batch_size=4, verbose=False)
        states.append(trainer.get_parameters())
    for key, value in states[0].items():
        assert value.tobytes() == states[1][key].tobytes(), key


@pytest.mark.parametrize(("first", "second"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_checkpoint_goes_on_on_the_other_device(tmp_path, first, second):
    x, y = vectors(8)
    path = tmp_path / "half.safetensors"
    whole = trainer_for("mlp", "cpu")
    losses = whole.fit(x, y, epochs=3, batch_size=4, verbose=False)["loss"]
    before = trainer_for("mlp", first)
    before.fit(x, y, epochs=1, batch_size=4, verbose=False)
    before.save(path)
    after = trainer_for("mlp", second)
    history = after.fit(x, y, epochs=3, batch_size=4, resume=path, verbose=False)
    np.testing.assert_allclose(history["loss"], losses[1:], rtol=TOLERANCE)
    assert after.step == whole.step


def test_a_model_moves_between_devices():
    x, _ = vectors(5)
    model = mlp()
    on_cpu = model.predict(x)
    np.testing.assert_allclose(model.to("cuda").predict(x), on_cpu, rtol=1e-5, atol=1e-6)
    weights = model.layers[0].weight
    weights.value[...] *= 2  # on the host: the device gets it with the next step
    changed = model.predict(x)
    assert np.abs(changed - on_cpu).max() > 1e-3
    np.testing.assert_allclose(model.to("cpu").predict(x), changed, rtol=1e-5, atol=1e-6)


def test_batches_that_an_iterable_gives():
    x, y = vectors(8)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    losses = [
        trainer_for("mlp", device).fit(batches, epochs=2, verbose=False)["loss"]
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE)


def test_single_steps():
    x, y = vectors(4)
    losses = {}
    for device in ("cpu", "cuda"):
        step = fnn.compile(regularised(), "cross_entropy", "adam", device=device, seed=1)
        losses[device] = [step(x, y) for _ in range(3)] + [step.evaluate(x, y)]
        gradients = step.gradients(x, y)
        losses[device] += [float(np.square(g).sum()) for g in gradients.values()]
        assert step.steps == 3
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=5e-4, atol=1e-7)


def test_ids_out_of_range_stop_a_step_before_anything_is_read():
    step = fnn.compile(mlp(), "cross_entropy", device="cuda")
    x, y = vectors(4)
    step(x, y)
    with pytest.raises(DataError, match=r"integers in 0..2, got 9"):
        step(x, np.array([0, 9, 1, 2]))
    assert step.steps == 1
    step(x, y)
    assert step.steps == 2


@pytest.mark.parametrize("graphs", [True, False])
def test_a_loss_that_is_not_finite_stops_before_parameters_change(graphs):
    """Steps that were sent ahead leave everything as the last good step left it."""
    x, y = vectors(12)
    x[8:] = 3e38  # finite, but sums of it are not
    trainer = trainer_for("regularised", "cuda", graphs=graphs)
    good = trainer_for("regularised", "cuda")
    good.fit(x[:8], y[:8], epochs=1, batch_size=4, shuffle=False, verbose=False)
    with pytest.raises(NonFiniteError, match="epoch 1, step 3 of the epoch"):
        trainer.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=False)
    assert trainer.step == good.step == 2
    for key, value in good.get_parameters().items():
        assert value.tobytes() == trainer.get_parameters()[key].tobytes(), key


@pytest.mark.parametrize("frozen", ["0.*", "2.*", None])
def test_an_update_that_breaks_a_parameter_is_undone(frozen):
    """What the updates saved is put back; beside it, of parameters that are frozen, nothing was."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5), nn.Linear(5, 3))
    if frozen:
        model.freeze(frozen)
    step = fnn.compile(model, "mse", optim.Adam(lr=0.1), device="cuda")
    x, y = vectors(8)[0], np.ones((8, 3), np.float32)
    names = ["params", "buffers", "slots/exp_avg", "slots/exp_avg_sq"]
    for _ in range(2):
        step(x[:, :4], y)
    before = {name: np.array(step.session.runtime.read(name)) for name in names}
    step.learning_rate = 1e300  # infinite in float32
    with pytest.raises(NonFiniteError, match="the step is too large"):
        step(x[:, :4], y)
    for name in names:
        assert before[name].tobytes() == step.session.runtime.read(name).tobytes(), name
    step.learning_rate = 0.01
    assert np.isfinite(step(x[:, :4], y))


class Theirs:
    """An array on the device, of another library."""

    def __init__(self, trainer, array):
        self.piece = trainer.session.runtime.gpu.allocate(array.nbytes, "theirs")
        trainer.session.runtime.gpu.upload(array, self.piece)
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __cuda_array_interface__(self):
        return interface(self.piece.address, self.shape, self.dtype)


def test_data_on_the_device_are_used_there():
    x, y = vectors(8)
    plain = trainer_for("mlp", "cuda").fit(x, y, batch_size=4, verbose=False)["loss"]
    trainer = trainer_for("mlp", "cuda")
    theirs = Theirs(trainer, x), Theirs(trainer, y)
    runtime, pieces = trainer.session.runtime, []

    def look(epoch, logs):
        pieces.append(runtime.memory.segments["data/x0"].copies[runtime.gpu])

    callback = fnn.callbacks.LambdaCallback(on_epoch_end=look)
    losses = trainer.fit(*theirs, batch_size=4, callbacks=callback, verbose=False)["loss"]
    assert losses == plain
    assert pieces[0].address == theirs[0].piece.address
    assert "data/x0" not in runtime.memory.segments  # theirs again
    found = trainer.model.predict(theirs[0], on_device=True)
    assert isinstance(found, DeviceArray)
    np.testing.assert_array_equal(np.asarray(found), trainer.model.predict(x))
    on_cpu = fnn.Trainer(mlp(), "cross_entropy", device="cpu", seed=4)
    assert np.isfinite(on_cpu.evaluate(*theirs)["loss"])  # copied there


def test_a_users_op_with_kernels_for_cuda():
    @fnn.kernel
    def cube_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            for j in range(x.shape[1]):
                y[i, j] = x[i, j] ** 3

    @fnn.kernel
    def cube_backward(
        x: "in rows f[N,C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"
    ):
        for i in range(lo, hi):
            for j in range(x.shape[1]):
                dx[i, j] = 3 * x[i, j] ** 2 * dy[i, j]

    def launch(s):
        return s["N"], 32

    def forward_cuda(x: "in rows f[N,C]", y: "out rows f[N,C]"):
        i = cuda.blockIdx.x
        for j in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
            y[i, j] = x[i, j] ** 3

    def backward_cuda(x: "in rows f[N,C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]"):
        i = cuda.blockIdx.x
        for j in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
            dx[i, j] = 3 * x[i, j] ** 2 * dy[i, j]

    pair = [
        fnn.cuda_kernel(forward_cuda, launch=launch, name="cube_forward"),
        fnn.cuda_kernel(backward_cuda, launch=launch, name="cube_backward"),
    ]
    cube = fnn.define_op("cuda_test_cube", cube_forward, cube_backward, cuda=pair)

    class Cubes(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(5, 3)

        def forward(self, x):
            return cube(self.linear(x))

    x, y = vectors(4)
    losses = {}
    for device in ("cpu", "cuda"):
        step = fnn.compile(Cubes(), "cross_entropy", "sgd", device=device)
        losses[device] = [step(x, y) for _ in range(3)]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=TOLERANCE)


def test_no_code_depends_on_the_host_between_steps():
    """A loss written with operators, on data of other types, in float64."""
    x, y = np.arange(24).reshape(6, 4).astype(np.uint8), np.arange(6.0).reshape(6, 1)

    def squared(out, target):
        difference = out - target
        return ops.mean(difference * difference)

    losses = [
        fnn.Trainer(nn.Linear(4, 1), squared, "sgd", device=device, dtype="float64")
        .fit(x, y, epochs=2, batch_size=4, verbose=False)["loss"]
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)


def test_signals_of_layers_are_those_of_the_cpu():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    y = np.arange(6) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    wanted = signals(model, x, y, "cross_entropy")
    found = signals(model.to("cuda"), x, y, "cross_entropy")
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    for own, other in zip(found.layers, wanted.layers, strict=True):
        np.testing.assert_allclose(own.output, other.output, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(own.gradient, other.gradient, rtol=1e-5, atol=1e-6)
    for name, gradient in wanted.parameters.items():
        np.testing.assert_allclose(found.parameters[name], gradient, rtol=1e-5, atol=1e-6)


def test_memory_goes_with_the_last_reference():
    """Segments, programs and the runtime, without the collector; arrays of the host when a run
    ends, after which the next one on like arrays has the programs that are bound."""
    gc.collect()
    gc.disable()
    try:
        model = nn.Linear(3, 2)
        trainer = fnn.Trainer(model, "cross_entropy", device="cuda")
        bound = []
        for _ in range(2):
            x, y = np.ones((8, 3), np.float32), np.arange(8) % 2
            trainer.fit(x, y, batch_size=4, verbose=False)
            trainer.evaluate(x, y)
            model.predict(x)
            arrays = weakref.ref(x), weakref.ref(y)
            del x, y
            assert all(array() is None for array in arrays)
            bound.append(list(trainer.session.runtime._bound.values()))
        assert [id(b) for b in bound[0]] == [id(b) for b in bound[1]]
        trainer.fit([(np.ones((4, 3), np.float32), np.arange(4) % 2)], verbose=False)
        predictor = model.__dict__["_predictor"]
        watched = []
        for runtime in (trainer.session.runtime, predictor.session.runtime):
            things = [runtime, *runtime._bound.values(), *runtime.memory.segments.values()]
            watched += [weakref.ref(thing) for thing in things]
        del trainer, model, bound, predictor, runtime, things
        assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()

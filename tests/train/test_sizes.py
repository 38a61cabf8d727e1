"""One program for many lengths and batch sizes, with the bits of programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.engine import plans
from fastnn.errors import DataError, NonFiniteError
from fastnn.plan import sizes
from fastnn.plan.spans import Span
from fastnn.plan.verify import verify

WORDS, TAGS, IGNORED = 30, 5, -1
LENGTHS = [int(n) for n in np.random.default_rng(0).permutation(np.arange(3, 27))]


class Tagger(nn.Module):
    """`between` stands between the outputs of the recurrent layer and the logits."""

    def __init__(
        self,
        cell: Any = nn.LSTM,
        between: Callable[..., Any] = lambda y, lengths: y,
        out: int = TAGS,
        **options: Any,
    ):
        self.vectors, self.cell = nn.Embedding(WORDS, 6), cell(6, 8, **options)
        self.head, self.between, self.factor = nn.Linear(self.cell.output_size, out), between, 1.0
        self.norm, self.batch_norm = nn.LayerNorm(8), nn.BatchNorm(8)
        self.drop, self.gate = nn.Dropout(0.3), nn.Linear(8, 8)

    def forward(self, ids: Any, lengths: Any) -> Any:
        y, _ = self.cell(self.vectors(ids), lengths=lengths)
        return self.head(self.between(y, lengths) * self.factor)


def batch(steps: int, samples: int = 6, seed: int = 0) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([seed, steps])
    lengths = rng.integers(0, steps + 1, samples)
    lengths[0] = steps
    tags = rng.integers(0, TAGS, (samples, steps))
    tags[np.arange(steps) >= lengths[:, None]] = IGNORED
    return (rng.integers(0, WORDS, (samples, steps)), lengths), tags


def trainer(model: nn.Module, loss: Any = None, **options: Any) -> fnn.Trainer:
    return fnn.Trainer(
        model, loss or nn.CrossEntropyLoss(ignore_index=IGNORED),
        optim.Adam(lr=0.02, clip_global_norm=1.0), seed=1, **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program that takes over another one's plan is checked as planned ones are."""

    def checked(*given: Any) -> Any:
        program = sizes.resized(*given)
        if program is not None:
            verify(program)
        return program

    monkeypatch.setattr(plans, "resized", checked)
    monkeypatch.setattr(plans, "MOST", 1000)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What makes all programs from here on be planned for themselves."""

    def alone() -> None:
        monkeypatch.setattr(plans, "resized", lambda *_: None)
        monkeypatch.setattr(plans, "EXACT", 10**9)

    return alone


def planned(made: Any) -> int:
    """How many programs have been planned."""
    return sum(map(len, made._plans._plans.values()))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


def numbers(logs: Any) -> Any:
    return {name: list(values) for name, values in dict(logs).items() if "time" not in name}


def test_every_path_has_the_bits_of_exact_lengths(exact):
    data = [batch(steps) for steps in LENGTHS[:10]]
    weighted = [(x, y, np.random.default_rng(3).random(y.shape) * (y >= 0)) for x, y in data]

    def run(workers: int) -> tuple[Any, tuple[int, ...]]:
        model = Tagger(bidirectional=True)
        made = trainer(model, metrics=["accuracy", "top_2_accuracy"], workers=workers)
        found: list[Any] = [numbers(made.fit(data, epochs=2, validation=data[::-1], verbose=False))]
        found.append(made.evaluate([batch(steps, 4) for steps in LENGTHS[:10]]))
        for x, y in data:  # as arrays: gathered, four at a time, two are left
            found.append(numbers(made.fit(x, y, batch_size=4, verbose=False)))
            found.append(made.evaluate(x, y, batch_size=4))
            found.append(made.predict(x, batch_size=4))
        found.append(numbers(made.fit(weighted, verbose=False)))
        step = fnn.compile(model, nn.CrossEntropyLoss(ignore_index=IGNORED), workers=workers)
        for use in (step, step.evaluate, step.gradients):
            found += [use(*given) for given in [*data, *weighted]]
        state = {name: np.array(value) for name, value in model.state_dict().items()}
        counts = tuple(map(planned, (made, model._own_predictor(), step)))
        assert len(made._built) == 10 * 8
        return (found, state), counts

    few = [run(workers) for workers in (1, 2, 3)]
    exact()
    expected, all_counts = run(2)
    assert all_counts == (10 * 8, 10 * 2, 10 * 6)
    for found, counts in few:
        assert same(found, expected)
        assert counts < (36, 6, 24)  # data in memory have a plan for each array's steps


# ---------------------------------------------------------------- what may be trained


def column(y: Any, lengths: Any) -> Any:
    return y * ops.sigmoid(y[:, :, :1]) + y[:, :, 1:2]


BETWEEN: dict[str, Callable[..., Any]] = {
    "add": lambda y, _: y + y,
    "subtract": lambda y, _: y - ops.tanh(y),
    "multiply": lambda y, _: y * ops.sigmoid(y),
    "affine": lambda y, _: 1.0 - 2.0 * y,
    "negate": lambda y, _: -y,
    "relu": lambda y, _: ops.relu(y),
    "leaky_relu": lambda y, _: ops.leaky_relu(y),
    "gelu": lambda y, _: ops.gelu(y),
    "silu": lambda y, _: ops.silu(y),
    "split": lambda y, _: ops.concatenate(*ops.split(y, 2)[::-1]),
    "column": column,
}
CELLS: dict[str, Any] = {
    "rnn": {"cell": nn.RNN}, "gru": {"cell": nn.GRU}, "both ways": {"bidirectional": True},
    "peepholes": {"peepholes": True}, "bptt": {"bptt": 3},
    "reset before": {"cell": nn.GRU, "reset": "before"},
}  # fmt: skip
LOSSES: dict[str, tuple[Any, Any]] = {
    "mse": (nn.MSELoss(), None), "mae": (nn.L1Loss(), None), "huber": (nn.HuberLoss(), None),
    "bce": (nn.BCEWithLogitsLoss(), ["accuracy"]),
    "weights": (nn.CrossEntropyLoss([1, 2, 0.5, 3, 1], IGNORED, 0.1), None),
    "nll": (nn.NLLLoss(ignore_index=IGNORED), None),
    "sum": (nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum"), None),
}  # fmt: skip


def fits(model: nn.Module, data: list[Any], loss: Any = None, metrics: Any = ()) -> Any:
    made = trainer(model, loss, metrics=metrics or [])
    logs = numbers(made.fit(data, epochs=2, verbose=False))
    state = {name: np.array(value) for name, value in model.state_dict().items()}
    return made, (logs, state)


def few_and_exact(make: Callable[[], nn.Module], exact: Any, *rest: Any) -> fnn.Trainer:
    made, found = fits(make(), *rest)
    exact()
    others, expected = fits(make(), *rest)
    assert same(found, expected)
    assert planned(others) == len(LENGTHS)
    assert planned(made) <= 4
    return made


@pytest.mark.parametrize("name", BETWEEN)
def test_layers_that_may_be_trained(name, exact):
    few_and_exact(lambda: Tagger(between=BETWEEN[name]), exact, [batch(n) for n in LENGTHS])


@pytest.mark.parametrize("name", CELLS)
def test_cells(name, exact):
    few_and_exact(lambda: Tagger(**CELLS[name]), exact, [batch(n) for n in LENGTHS])


def test_sums_in_double_precision(exact):
    """There the order of a sum shows: in each loss, and in what gradients are divided by."""
    rng, found = np.random.default_rng(0), []
    data = [(*batch(n, 9), rng.random((9, n))) for n in LENGTHS]
    for _ in range(2):
        loss = nn.CrossEntropyLoss(ignore_index=IGNORED)
        step = fnn.compile(Tagger(), loss, "sgd", dtype="float64")
        made = trainer(step.model, loss, dtype="float64", metrics=["nll"])
        found.append([[step(*given), made.evaluate([given])] for given in data])
        found.append([step.gradients(*given) for given in data])
        exact()
    assert same(found[:2], found[2:])


class Scores(Tagger):
    def forward(self, ids: Any, lengths: Any) -> Any:
        return ops.log_softmax(super().forward(ids, lengths))


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, exact):
    loss, metrics = LOSSES[name]

    def given(steps: int) -> tuple[Any, ...]:
        x, y = batch(steps)
        if name in ("weights", "nll", "sum"):
            return x, y
        kept = (y >= 0).astype(np.float32)
        return x, (np.eye(TAGS, dtype=np.float32)[y] * kept[..., None]), kept

    make = Scores if name == "nll" else Tagger
    few_and_exact(make, exact, [given(n) for n in LENGTHS], loss, metrics)


class Spelling(nn.Module):
    """Letters of each word through one cell, words through another."""

    def __init__(self) -> None:
        self.letters, self.speller = nn.Embedding(WORDS, 4), nn.GRU(4, 5)
        self.cell, self.head = nn.LSTM(5, 8), nn.Linear(8, TAGS)

    def forward(self, letters: Any, spelt: Any, lengths: Any) -> Any:
        samples, steps, size = letters.shape
        x = self.letters(ops.reshape(letters, samples * steps, size))
        _, (last,) = self.speller(x, lengths=ops.reshape(spelt, samples * steps))
        y, _ = self.cell(ops.reshape(last, samples, steps, -1), lengths=lengths)
        return self.head(y)


def test_sequences_in_sequences(exact):
    def given(steps: int) -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(steps)
        (_, lengths), y = batch(steps)
        letters = rng.integers(0, WORDS, (len(y), steps, 7))
        return (letters, rng.integers(0, 8, (len(y), steps)), lengths), y

    few_and_exact(Spelling, exact, [given(n) for n in LENGTHS])


class Classifier(nn.Module):
    """The last state and an input that have no steps, so that dropout is the same; leaky sums."""

    def __init__(self) -> None:
        self.cell, self.drop = nn.GRU(4, 8), nn.Dropout(0.4)
        self.head = nn.Linear(12, TAGS)

    def forward(self, x: Any, lengths: Any, extra: Any) -> Any:
        slow, _ = ops.leaky(x, lengths=lengths)
        _, (last,) = self.cell(slow, lengths=lengths)
        return self.head(ops.concatenate(self.drop(last), extra))


def test_one_target_for_a_sequence(exact):
    def given(steps: int) -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(steps)
        x, extra = rng.normal(size=(6, steps, 4)), rng.normal(size=(6, 4))
        return (x, rng.integers(0, steps + 1, 6), extra), rng.integers(0, TAGS, 6)

    data = [given(n) for n in LENGTHS]
    few_and_exact(Classifier, exact, data, nn.CrossEntropyLoss(), ["accuracy"])


class Wide(Tagger):
    """Weights so large that there are other kernels where there are many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 800), nn.Linear(800, 800)
        self.head = nn.Linear(800, TAGS)

    def forward(self, ids: Any, lengths: Any) -> Any:
        y, _ = self.cell(self.vectors(ids), lengths=lengths)
        return self.head(ops.relu(self.down(ops.relu(self.up(y)))))


def test_large_weights(exact):
    data = [batch(n, 3) for n in (2, 3, 4, 9, 5, 14, 20, 25, 6, 31)]
    _, found = fits(Wide(), data)
    exact()
    assert same(found, fits(Wide(), data)[1])


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_rows(samples, exact):
    """Up to four rows a product's gradient is summed in another order."""
    data, found = [batch(n, samples) for n in (7, 5, 4, 3, 2, 1)], []
    for _ in range(2):
        step = fnn.compile(Tagger(), nn.CrossEntropyLoss(ignore_index=IGNORED), "sgd", seed=1)
        found.append([step.gradients(*given) for given in data])
        exact()
    assert same(*found)


# ---------------------------------------------------------------- what mixes steps


def positions(y: Any, lengths: Any) -> Any:
    return y + np.arange(y.shape[1])[None, :, None] * 0.1


def attention(y: Any, lengths: Any) -> Any:
    return ops.softmax(y @ ops.transpose(y, 0, 2, 1), axis=-1) @ y


def branch(y: Any, lengths: Any) -> Any:
    return ops.tanh(y) if y.shape[1] % 3 else ops.relu(y)


def decayed(y: Any, lengths: Any) -> Any:
    last = ops.loop(lambda y_t, h: (h, h * 0.5 + y_t), y, ops.zeros_state(y, y.shape[2]))[1]
    return y + ops.reshape(last, (y.shape[0], 1, y.shape[2]))


def in_turn(y: Any, lengths: Any) -> Any:
    """Of eight units at eight steps rows are split alike that are not at other lengths."""
    total = ops.relu(ops.sum(y, axis=0))
    return y + ops.reshape(ops.tanh(ops.reshape(total, y.shape[2], y.shape[1])), *y.shape[1:])


MIXING: dict[str, Callable[..., Any]] = {
    "mean": lambda y, _: y - ops.mean(y, axis=1, keepdims=True),
    "maximum": lambda y, _: y - ops.max(y, axis=1, keepdims=True),
    "softmax over time": lambda y, _: ops.softmax(y, axis=1),
    "sum over time": lambda y, _: ops.cumsum(y, axis=1),
    "reversed": lambda y, _: y[:, ::-1],
    "last": lambda y, _: y - y[:, -1:],
    "turned": lambda y, _: ops.transpose(ops.transpose(y, 0, 2, 1), 0, 2, 1),
    "attention": attention,
    "positions": positions,
    "by steps": lambda y, _: y / y.shape[1],
    "branch": branch,
    "no lengths": lambda y, _: ops.leaky(y)[0],
    "the last state of a loop": decayed,
    "steps and units in turn": in_turn,
    "an array of the steps": lambda y, _: y * np.full(y.shape[2], 1.0 / y.shape[1]),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_depends_on_the_steps(name, exact):
    data, found, models = [batch(n) for n in LENGTHS[:9]], [], []
    for _ in range(2):
        models.append(Tagger(between=MIXING[name]))
        made = trainer(models[-1])
        found.append(numbers(made.fit(data, epochs=2, verbose=False)))
        found.append([models[-1].predict(*x) for x, _ in data])
        if len(models) == 1:
            assert planned(made) <= 6
        exact()
    assert same(found[:2], found[2:])


@pytest.mark.parametrize(
    ("between", "loss"),
    [
        ("norm", None), ("batch_norm", None), ("drop", None), ("exp", None),
        ("", nn.CrossEntropyLoss()), ("", nn.CrossEntropyLoss(reduction="sum")),
    ],
)  # fmt: skip
def test_what_mixes_samples_or_draws_numbers(between, loss, exact):
    """Sums in another order, random numbers by place, infinity times 0, rows that count."""

    class Net(Tagger):
        def forward(self, ids: Any, lengths: Any) -> Any:
            y, _ = self.cell(self.vectors(ids), lengths=lengths)
            other = ops.exp if between == "exp" else getattr(self, between, lambda y: y)
            return self.head(other(y))

    data = [batch(n) for n in LENGTHS]
    if loss is not None:
        data = [(x, np.maximum(y, 0)) for x, y in data]
    found = []
    for _ in range(2):
        model = Net()
        made, logs = fits(model, data, loss)
        found.append((logs, [model.predict(*x) for x, _ in data]))
        few = [planned(one) for one in (made, model._own_predictor())]
        assert max(few) <= 4 if len(found) == 1 else few == [len(LENGTHS)] * 2
        exact()
    assert same(*found)


def test_a_change_of_the_model_is_seen(exact):
    """The model divides by its steps, after a while."""
    data, found = [batch(n) for n in LENGTHS[:10]], []
    for _ in range(2):
        model = Tagger()
        made = trainer(model)
        made.fit(data, verbose=False)
        model.between = lambda y, _: y / y.shape[1]
        made.fit(data, verbose=False)
        found.append([model.predict(*x) for x, _ in data])
        exact()
    assert same(*found)


# ---------------------------------------------------------------- outputs, and what is refused


def test_outputs_have_the_steps_that_were_given(exact):
    """Rows past a sequence's end are those of exact lengths, too; steps may be merged with rows."""

    class Several(Tagger):
        def forward(self, ids: Any, lengths: Any) -> Any:
            y, (last,) = self.cell(self.vectors(ids), lengths=lengths)
            rows = ops.reshape(self.head(y), -1, TAGS)
            return {"y": y, "rows": rows, "last": last[0], "ids": ids, "lengths": lengths}

    model, other = Several(), Several()
    other.load_state_dict(model.state_dict())
    data = [batch(n, 7)[0] for n in LENGTHS]
    found = [model.predict(*x, batch_size=3) for x in data]
    exact()
    assert same(found, [other.predict(*x, batch_size=3) for x in data])
    assert [f["y"].shape for f in found] == [(7, n, 8) for n in LENGTHS]
    assert [f["rows"].shape for f in found] == [(7 * n, TAGS) for n in LENGTHS]


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("wrong", [10, -1])
def test_lengths_past_the_steps_are_refused(few, wrong):
    model = Tagger()
    made, step = trainer(model), fnn.compile(model, nn.CrossEntropyLoss(ignore_index=IGNORED))
    for x, y in [batch(12)] if few else []:
        model.predict(*x), made.fit([(x, y)], verbose=False), made.evaluate([(x, y)])
        step(x, y), step.evaluate(x, y), step.gradients(x, y)
    (ids, lengths), y = batch(9)
    lengths[2] = wrong
    x = (ids, lengths)
    message = rf"inputs: 'cell' expects lengths in 0..9, the steps of its sequences, got {wrong};"
    for use in (
        lambda: model.predict(*x), lambda: made.fit([(x, y)], verbose=False),
        lambda: made.fit(x, y, verbose=False), lambda: made.evaluate([(x, y)]),
        lambda: made.evaluate(x, y), lambda: step(x, y), lambda: step.evaluate(x, y),
        lambda: step.gradients(x, y),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            use()


def test_lengths_of_a_loop_are_checked_too():
    class Sum(nn.Module):
        def forward(self, x: Any, lengths: Any) -> Any:
            return ops.loop(lambda x, s: (s + x, s + x), x, ops.zeros_state(x, 2), lengths)[0]

    with pytest.raises(DataError, match=r"expects lengths in 0..3, .* got 4"):
        Sum().predict(np.ones((2, 3, 2)), np.array([4, 1]))


# ---------------------------------------------------------------- what users write themselves


class Short(Tagger):
    """Has a limit of its own, within a range of lengths, and says so in its own words."""

    def forward(self, ids: Any, lengths: Any) -> Any:
        if ids.shape[1] > 13:
            raise ValueError("sentences of at most 13 words")
        return super().forward(ids, lengths)


def test_what_a_model_says_of_longer_sequences_concerns_them_alone(exact):
    data, found = [batch(n) for n in (3, 4, 5, 6, 9, 11, 13, 7)], []
    for _ in range(2):
        model = Short()
        made, logs = fits(model, data)
        with pytest.raises(ValueError, match="at most 13 words"):
            made.fit([batch(14)], verbose=False)
        found.append((logs, [model.predict(*x) for x, _ in data]))
        exact()
    assert same(*found)


class Noise(fnn.callbacks.Callback):
    """Writes to the arrays that training reads: before each epoch, or before each batch."""

    def __init__(self, array: np.ndarray, each_batch: bool):
        self.array = array
        self.rng = np.random.default_rng(0)
        setattr(self, "on_train_batch_begin" if each_batch else "on_epoch_begin", self.write)

    def write(self, *_: Any) -> None:
        self.array[:] = self.rng.integers(0, WORDS, self.array.shape)


@pytest.mark.parametrize("each_batch", [False, True])
def test_arrays_are_read_where_they_lie(each_batch, exact):
    found = []
    for _ in range(2):
        (ids, lengths), tags = batch(11, 20)
        made = trainer(Tagger())
        noise = Noise(ids, each_batch)
        logs = made.fit(
            (ids, lengths), tags, epochs=3, batch_size=8, callbacks=noise, verbose=False
        )
        found.append((numbers(logs), made.predict((ids, lengths))))
        exact()
    assert same(*found)


@pytest.mark.parametrize("name", ["ids", "lengths", "tags"])
def test_what_is_written_to_arrays_is_checked(name):
    """A number out of range would be an address out of the table."""
    (ids, lengths), tags = batch(11)
    array, wrong = {"ids": (ids, 10**12), "lengths": (lengths, 12), "tags": (tags, TAGS)}[name]
    worse = fnn.callbacks.LambdaCallback(on_epoch_end=lambda *_: array.fill(wrong))
    with pytest.raises(DataError, match=rf"expects .*, got {wrong};"):
        trainer(Tagger()).fit((ids, lengths), tags, epochs=3, callbacks=worse, verbose=False)


# ---------------------------------------------------------------- sizes in turn


class Looping(nn.Module):
    """A loop in a group, which is part of another net; with `looks` one of phases, that looks at
    all of its inputs in each step."""

    def __init__(self, looks: bool = False):
        self.looks, self.query = looks, nn.Linear(6, 5)
        self.mix, self.head, self.drop = nn.Linear(11, 6), nn.Linear(6, 3), nn.Dropout(0.2)

    def forward(self, x: Any, lengths: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            if self.looks:
                scores = ops.softmax(ops.sum(x * ops.reshape(self.query(h), -1, 1, 5), axis=2))
                x_t = ops.sum(x * ops.reshape(scores, *scores.shape, 1), axis=1)
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
            return self.drop(h), h

        y, _ = ops.loop(step, x, ops.zeros_state(x, 6), lengths)
        return self.head(y)


def series(samples: int, steps: int) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([samples, steps])
    x = rng.normal(size=(samples, steps, 5)).astype(np.float32)
    return (x, rng.integers(1, steps + 1, samples)), rng.normal(size=(samples, steps, 3))


SHAPES = [(9, 20), (9, 8), (9, 21), (9, 50), (9, 64), (5, 20), (9, 2), (9, 8), (6, 33), (9, 1)]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loop_has_one_program_for_many_lengths(looks, dtype, exact):
    def run(workers: int) -> tuple[Any, int]:
        step = fnn.compile(Looping(looks), "mse", workers=workers, dtype=dtype, seed=4)
        losses = [step(*series(*shape)) for shape in SHAPES * 2]
        found = [losses, [step.model.predict(*series(*s)[0], batch_size=4) for s in SHAPES]]
        return [*found, step.model.state_dict()], planned(step)

    found = [run(workers) for workers in (1, 2, 3)]
    exact()
    expected, count = run(1)
    assert count == len(set(SHAPES))
    for each, few in found:
        assert same(each, expected)
        assert few <= 4  # 9 x 20, 9 x 21, 9 x 64, and what has one step


def test_the_last_batch_is_the_program_of_the_others(exact):
    x, y = series(39, 7)
    found = []
    for _ in range(2):
        made = fnn.Trainer(Looping(), "mse", optim.Adam(0.01), seed=2, workers=2)
        found.append(numbers(made.fit(x, y, epochs=3, batch_size=16, verbose=False)))
        found.append((made.evaluate(x, y, batch_size=16), made.predict(x, batch_size=16)))
        assert planned(made) == (2 if len(found) == 2 else 4)
        exact()
    assert same(found[:2], found[2:])


def test_arrays_that_are_read_where_they_lie_belong_to_their_size(exact):
    """Sizes in turn, each of an array of its own that is large enough to be read in place."""
    given = [series(16, 60), series(16, 40), series(16, 59), series(16, 2)]
    found = []
    for _ in range(2):
        step = fnn.compile(Looping(), "mse", seed=1)
        found.append([step(*given[k]) for k in (0, 1, 0, 1, 2, 3, 0, 3, 0, 1, 1, 0)])
        exact()
    assert same(*found)


def test_programs_of_a_size_take_little_memory():
    step = fnn.compile(Looping(), "mse")
    step(*series(9, 40))
    first = step._ready.nbytes
    for steps in range(20, 40):
        step(*series(9, steps))
    assert (step._ready.nbytes - first) / 20 < first / 2


def test_spans_that_meet_at_other_sizes_need_a_plan_of_their_own():
    first, last, whole, other = Span(0, 1), Span(7, 8), Span(0, 8), Span(0, 3)
    sizes._same_meetings((8, 4), [first, last, whole], [first, Span(3, 4), Span(0, 4)])
    for mine, theirs in (
        ([first, last], [first, first]),  # the last step is the first
        ([whole], [other]),  # all of it
        ([first, first], [first, other]),  # the very same, or in part
    ):
        with pytest.raises(sizes._Different):
            sizes._same_meetings((8, 4), mine, theirs)


@pytest.mark.parametrize("steps", [8, 4])
def test_calls_that_are_split_alike_by_chance(steps):
    step = fnn.compile(Tagger(between=in_turn), nn.CrossEntropyLoss(ignore_index=IGNORED))
    step(*batch(8))
    step(*batch(steps))
    assert planned(step) == (1 if steps == 8 else 2)


class Log(nn.Module):
    def forward(self, x: Any) -> Any:
        return ops.log(ops.tanh(x) + 0.1)


def test_what_is_not_finite_first_is_named_at_each_size():
    """In local memory, too, of which calls that are made one by one have their own."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(Log(), nn.Linear(8, 5)))
    step = fnn.compile(model, "mse", "sgd")
    model[0].weight.value = np.full((8, 4), 0.1)
    for samples, steps in [(16, 40), (16, 7), (5, 20), (3, 2)]:
        x, y = np.ones((samples, steps, 4)), np.zeros((samples, steps, 5))
        model[0].bias.value = np.ones(8)
        step(x, y)
        model[0].bias.value = -np.ones(8)
        with pytest.raises(NonFiniteError, match=r"such number came from log_forward in 1\.0"):
            step(x, y)
    assert planned(step) == 1


def test_a_size_with_more_workers_leaves_the_others_their_arrays(monkeypatch):
    """Its workers have records of their own, which arrays that are read in place are written to."""
    rng, found = np.random.default_rng(0), []
    shapes = [(16, 60), (16, 60), (16, 40)]
    given = [(rng.normal(size=(*s, 5)).astype("f"), rng.normal(size=(*s, 3))) for s in shapes]
    for counts in (False, True):
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        step = fnn.compile(model, "mse", workers="auto", seed=1)
        runtime: Any = step.session.runtime
        monkeypatch.setattr(runtime, "count", lambda p, more=counts: 2 if more and p.within else 1)
        found.append([step(*given[k]) for k in (0, 1, 2, 0, 1, 0)])
    assert same(*found)

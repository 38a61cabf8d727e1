"""Pictures show the numbers that they are to show."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim, plot
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.optim.schedules import CosineAnnealing, LinearWarmup

pytest.importorskip("matplotlib.axes")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 16)).astype(np.float32)
Y = RNG.integers(0, 3, 40)
COSINE = CosineAnnealing(2, unit="epoch")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 3))


def test_rates_are_those_of_training() -> None:
    figure = plot.schedules({"cos": COSINE}, 5, steps_per_epoch=2, lr=0.2)
    rates = [0.2, 0.2, 0.1, 0.1, 0.0]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), rates, atol=1e-12)


def test_every_picture_is_saved(tmp_path) -> None:
    model = net()
    history = fnn.Trainer(model, "cross_entropy", "adam").fit(X, Y, epochs=2, verbose=False)
    pictures = {
        "curves": lambda path: plot.learning_curves(history, path),
        "functions": lambda path: plot.activations(path=path),
        "confusion": lambda path: plot.confusion_matrix(Y, model.predict(X), path=path),
        "weights": lambda path: plot.weights(model[0].weight, path=path),
        "projection": lambda path: plot.embedding(X, Y, path=path),
        "gradients": lambda path: plot.gradient_flow(model, X, Y, "cross_entropy", path),
        "landscape": lambda path: plot.loss_surface(
            model, X, Y, "cross_entropy", points=3, path=path
        ),
        "filters": lambda path: plot.filters(nn.SincConv(4, 31, 8000), path=path),
        "responses": lambda path: plot.frequency_responses(nn.SincConv(4, 31, 8000), path=path),
        "rates": lambda path: plot.schedules({"warm": LinearWarmup(4), "cos": COSINE}, path=path),
        "samples": lambda path: plot.samples(X, columns=8, path=path),
        "paths": lambda path: plot.optimizer_paths("saddle", {"sgd": optim.SGD()}, 5, path),
    }
    for name, draw in pictures.items():
        draw(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_without_matplotlib(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install"):
        plot.activations()


def test_curves() -> None:
    runs = {
        "a": {"loss": [3.0, 2.0], "accuracy": [0.1, 0.2]},
        "b": {"loss": [1.0], "val_loss": [2]},
    }
    axes = plot.learning_curves(runs).axes
    assert [ax.get_title() for ax in axes] == ["loss", "accuracy"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes[0].lines}
    assert lines == {"a training": [3, 2], "b training": [1], "b validation": [2]}
    assert list(axes[0].lines[0].get_xdata()) == [1, 2]
    assert [line.get_linestyle() for line in axes[0].lines] == ["--", "--", "-"]
    with pytest.raises(DataError, match="epoch"):
        plot.learning_curves({})


def test_functions_and_slopes() -> None:
    figure = plot.activations(["sigmoid", nn.ReLU(), lambda x: x * x * x, "softmax", nn.PReLU(1)])
    names = ["sigmoid", "ReLU", "function 3", "softmax of (x, 0)", "PReLU"]
    assert [ax.get_title() for ax in figure.axes] == names

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    for ax, value, slope in zip(
        figure.axes,
        (sigmoid, lambda x: np.maximum(x, 0), lambda x: x**3, sigmoid,
         lambda x: np.where(x > 0, x, x / 4)),
        (lambda x: np.exp(-x) * sigmoid(x) ** 2, lambda x: x > 0, lambda x: 3 * x * x,
         lambda x: np.exp(-x) * sigmoid(x) ** 2, lambda x: np.where(x > 0, 1, 1 / 4)),
        strict=True,
    ):  # fmt: skip
        lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
        x = lines[0].get_xdata()
        np.testing.assert_allclose(lines[0].get_ydata(), value(x), atol=1e-12)
        np.testing.assert_allclose(lines[1].get_ydata(), slope(x), atol=1e-12)
    with pytest.raises(OptionError, match="names such as"):
        plot.activations(["wiggle"])
    with pytest.raises(OptionError, match="low < high"):
        plot.activations(low=1.0, high=1.0)


def test_confusion() -> None:
    figure = plot.confusion_matrix([[0, 1], [2, -100]], [[0, 2], [2, 1]])
    table = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(table, [[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    for text in ax.texts:
        column, row = text.get_position()
        assert int(text.get_text()) == table[row, column]
    scores = np.eye(3)[[0, 2, 2, 1]]
    figure = plot.confusion_matrix([0, 1, 2, 2], scores, normalize=True)
    table = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(table, [[1, 0, 0], [0, 0, 1], [0, 0.5, 0.5]])
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        plot.confusion_matrix([0, 1], [0, 1, 2])
    with pytest.raises(DataError, match="class indices"):
        plot.confusion_matrix([0.5, 1], [0, 1])
    with pytest.raises(DataError, match="from 0 on"):
        plot.confusion_matrix([-1], [0])
    with pytest.raises(OptionError, match="each of 3"):
        plot.confusion_matrix([0, 2], [0, 2], ["a", "b"])


def test_images() -> None:
    weight = RNG.normal(size=(5, 12))
    figure = plot.weights(weight, (3, 4))
    assert len(figure.axes) == 5
    for ax, row in zip(figure.axes, weight, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), row.reshape(3, 4))
        assert ax.images[0].get_clim() == (-np.abs(weight).max(), np.abs(weight).max())
    np.testing.assert_array_equal(plot.weights(weight).axes[0].images[0].get_array(), weight)
    assert len(plot.weights(RNG.normal(size=(100, 4)), count=10).axes) == 10
    with pytest.raises(OptionError, match="product of 12"):
        plot.weights(weight, (3, 5))
    with pytest.raises(ShapeError, match="height"):
        plot.weights(np.zeros((2, 2, 2, 2)))


@pytest.mark.peers
def test_projection_is_that_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    found = plot.embedding(X, names=[str(k) for k in range(40)]).axes[0]
    places = np.asarray(found.collections[0].get_offsets())
    pca = decomposition.PCA(2).fit(X.astype(np.float64))
    wanted = pca.transform(X.astype(np.float64))
    for k in range(2):
        sign = np.sign(places[0, k] * wanted[0, k])
        np.testing.assert_allclose(places[:, k], sign * wanted[:, k], atol=1e-9)
    assert f"{pca.explained_variance_ratio_[0]:.0%}" in found.get_xlabel()
    assert len(found.texts) == 40


def test_projection_keeps_labels_and_distances() -> None:
    """Of vectors in a plane far from 0."""
    plane = RNG.normal(size=(40, 2)) @ np.linalg.qr(RNG.normal(size=(5, 2)))[0].T + 10.0
    groups = plot.embedding(plane, Y).axes[0].collections
    assert [g.get_label() for g in groups] == ["0", "1", "2"]
    for kind, group in enumerate(groups):
        got, wanted = np.asarray(group.get_offsets()), plane[kind == Y]
        apart = [np.linalg.norm(a[:, None] - a, axis=-1) for a in (got, wanted)]
        np.testing.assert_allclose(*apart, atol=1e-12)
    every = np.concatenate([np.asarray(g.get_offsets()) for g in groups])
    np.testing.assert_allclose(every.mean(axis=0), 0.0, atol=1e-12)


def test_gradients_are_drawn_where_they_belong() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            self.rnn, self.out = nn.RNN(4, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.out(ops.tanh(self.rnn(x)[0][:, -1]))

    model, x = Last(), RNG.normal(size=(8, 6, 4)).astype(np.float32)
    layers, steps = plot.gradient_flow(model, x, np.zeros((8, 1)), "mse").axes
    found = fnn.diagnostics.signals(model, x, np.zeros((8, 1)), "mse").layers
    assert [t.get_text() for t in layers.get_xticklabels()] == [s.name for s in found]
    heights = [bar.get_height() for bar in layers.patches]
    np.testing.assert_allclose(heights, [s.gradient_rms for s in found], rtol=1e-6)
    assert len(set(heights)) > 1
    norms = steps.lines[0].get_ydata()
    assert list(steps.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert norms[-1] > norms[0] > 0  # the loss is at the last step


def test_projection_of_little() -> None:
    plot.embedding([[1.0], [2.0], [4.0]])
    plot.embedding(np.ones((3, 4)))
    with pytest.raises(DataError, match="finite"):
        plot.embedding([[1.0, math.nan], [2.0, 3.0]])
    with pytest.raises(ShapeError, match="dimensions"):
        plot.embedding(np.zeros((3, 0)))
    with pytest.raises(ShapeError, match="labels"):
        plot.embedding(X, Y[:3])


def test_landscape() -> None:
    model = net()
    before = {k: v.copy() for k, v in model.state_dict().items()}
    figure = plot.loss_surface(model, X, Y, "cross_entropy", points=3, span=0.5)
    assert figure.axes[0].get_xlim() == (-0.5, 0.5)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(OptionError, match="matrix"):
        plot.loss_surface(nn.Tanh(), X, X, "mse")
    with pytest.raises(OptionError, match="span"):
        plot.loss_surface(model, X, Y, "cross_entropy", span=0.0)


def test_landscape_is_the_loss_along_two_directions(drawn) -> None:
    model = nn.Linear(16, 3).to("float64")
    x, y = X[:9].astype(np.float64), RNG.normal(size=(9, 3))
    plot.loss_surface(model, x, y, "mse", points=3, span=0.5, seed=4)
    across, up, heights, *_ = drawn[0]
    w, b = np.array(model.weight), np.array(model.bias)
    source = np.random.default_rng(4)
    first, second = (
        d * np.linalg.norm(w, axis=1, keepdims=True) / np.linalg.norm(d, axis=1, keepdims=True)
        for d in (source.normal(size=w.shape), source.normal(size=w.shape))
    )
    for row, column in np.ndindex(3, 3):
        there = w + across[column] * first + up[row] * second
        wanted = np.mean((x @ there.T + b - y) ** 2)
        np.testing.assert_allclose(heights[row, column], wanted, rtol=1e-5)


def test_paths_are_drawn_on_their_surface(drawn) -> None:
    optimizer = optim.SGD(lr=0.5)
    above, curve = plot.optimizer_paths("valley", {"sgd": optimizer}, 5).axes
    way = plot.descend("valley", optimizer, 5)
    np.testing.assert_array_equal(np.transpose(above.lines[0].get_data()), way)
    np.testing.assert_allclose(
        curve.lines[0].get_ydata(), 0.01 * way[:, 0] ** 2 + way[:, 1] ** 2 / 2
    )
    x, y, colours, *_ = drawn[0]
    heights = 0.01 * x[None] ** 2 + y[:, None] ** 2 / 2
    np.testing.assert_allclose(colours, np.log1p(heights - heights.min()))


@pytest.fixture
def drawn(monkeypatch):
    """What is given to `contourf`, call by call."""
    calls: list[tuple] = []
    axes = sys.modules["matplotlib.axes"].Axes
    plain = axes.contourf

    def kept(self, *given, **options):
        calls.append(given)
        return plain(self, *given, **options)

    monkeypatch.setattr(axes, "contourf", kept)
    return calls


@pytest.mark.parametrize("name", plot.SURFACES)
def test_paths_follow_the_slope(name: str) -> None:
    """One step of gradient descent against differences."""
    surface = plot.SURFACES[name]
    way = plot.descend(name, optim.SGD(lr=1e-3), steps=3)
    assert way.shape == (4, 2)
    np.testing.assert_allclose(way[0], surface.begin)
    for begin, end in itertools.pairwise(way):
        slope = [
            (surface.height(*(begin + d)) - surface.height(*(begin - d))) / 2e-6
            for d in np.eye(2) * 1e-6
        ]
        np.testing.assert_allclose(end - begin, -1e-3 * np.array(slope), rtol=1e-5, atol=1e-11)


def test_heights_of_any_size_fill_their_panel() -> None:
    """Adagrad goes down by 300 orders of magnitude in 300 steps."""
    above, curve = plot.optimizer_paths("valley", {"adagrad": optim.Adagrad(lr=2.1)}, 300).axes
    low, high = curve.get_ylim()
    assert 0.64 < high < 6.4  # 0.66 at the beginning
    assert 1e-13 < low < 1e-10
    assert (above.get_xlabel(), above.get_ylabel()) == ("x", "y")


def test_paths_that_leave() -> None:
    assert len(plot.descend("rosenbrock", optim.SGD(lr=10.0), steps=50)) < 51
    figure = plot.optimizer_paths("rosenbrock", {"sgd": optim.SGD(lr=10.0)}, steps=50)
    drawn = figure.axes[1].lines[0].get_ydata()
    assert 1 <= len(drawn) < 10
    assert np.isfinite(drawn).all()
    with pytest.raises(OptionError, match="'valley'"):
        plot.descend("hill", "sgd")
    with pytest.raises(OptionError, match="at least one"):
        plot.optimizer_paths("valley", {})


def test_samples_lie_side_by_side() -> None:
    images = np.arange(5 * 2 * 3).reshape(5, 2, 3) / 29
    sheet = plot.samples(images, columns=3).axes[0].images[0].get_array()
    assert sheet.shape == (5, 11)
    for k, image in enumerate(images):
        top, left = 3 * (k // 3), 4 * (k % 3)
        np.testing.assert_allclose(sheet[top : top + 2, left : left + 3], image)
    assert (sheet[2] == 1).all()  # between them, and where there is none
    assert (sheet[3:, 8:] == 1).all()
    rows = plot.samples(images.reshape(5, 6), (2, 3), columns=3).axes[0].images[0].get_array()
    np.testing.assert_array_equal(rows, sheet)
    colours = plot.samples(np.full((2, 2, 2, 3), 4.0), limits=(0, 8)).axes[0].images[0].get_array()
    assert colours.shape == (2, 5, 3)
    assert colours[0, 0, 0] == 0.5


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(OptionError, match="6 pixels"):
        plot.samples(np.zeros((5, 6)))
    with pytest.raises(OptionError, match="product of 6"):
        plot.samples(np.zeros((5, 6)), (2, 2))
    with pytest.raises(OptionError, match="lower one first"):
        plot.samples(np.zeros((5, 4)), limits=(1, 0))
    with pytest.raises(ShapeError, match="height, width"):
        plot.samples(np.zeros((5, 2, 2, 4)))
    with pytest.raises(ShapeError, match="height, width"):
        plot.samples(np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("draw", "error", "text"),
    [
        (lambda: plot.weights(nn.Linear(4, 2)), DataError, "expected real numbers, got Linear"),
        (lambda: plot.weights(np.full((2, 4), np.nan)), DataError, "finite"),
        (lambda: plot.weights(np.ones((2, 6)), shape=(6,)), OptionError, "height and width"),
        (lambda: plot.samples(np.ones((2, 6)), shape=(2, 4)), OptionError, "product of 6"),
        (lambda: plot.confusion_matrix([0, 10**9], [0, 1]), DataError, "below 10000"),
        (lambda: plot.confusion_matrix([0, 1], [0, 1], classes=2), OptionError, "names"),
        (lambda: plot.embedding(np.ones((3, 4)), labels=3), ShapeError, "3 labels"),
        (lambda: plot.embedding(np.full((3, 4), np.nan)), DataError, "not finite"),
        (lambda: plot.confusion_matrix([], []), DataError, "got none"),
        (lambda: plot.schedules({}), OptionError, "got {}"),
        (lambda: plot.schedules({"a": "cosine"}), OptionError, "schedules 'a'.*got 'cosine'"),
        (lambda: plot.schedules({"a": COSINE}, 0), OptionError, "steps"),
        (lambda: plot.learning_curves({"a": {"loss": []}}), DataError, "with an epoch, got none"),
        (lambda: plot.learning_curves([{"loss": [1.0]}]), DataError, "got a list"),
        (lambda: plot.learning_curves({"loss": ["low"]}), DataError, "numbers"),
        (lambda: plot.optimizer_paths("valley", ["sgd"]), OptionError, "dict of optimisers"),
    ],
)
def test_what_cannot_be_drawn(draw, error, text) -> None:
    with pytest.raises(error, match=text):
        draw()


def test_alignment(tmp_path):
    weights = np.eye(3, 5)
    figure = fnn.plot.alignment(weights, ["a", "b"], list("xyz"), path=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), weights[:3, :2])
    with pytest.raises(ShapeError, match="draw one sample's"):
        fnn.plot.alignment(np.zeros((2, 3, 5)))
    with pytest.raises(OptionError, match="1 to 3 symbols in target, got 4"):
        fnn.plot.alignment(weights, target=list("wxyz"))

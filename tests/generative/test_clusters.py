"""K-means on principal components: what it finds, and models that are told it."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.errors import DataError, OptionError
from fastnn.generative import clusters
from fastnn.tasks import images
from fastnn.tasks.images import Images

RNG = np.random.default_rng(5)


def test_groups_that_lie_apart_are_found() -> None:
    places = 20.0 * RNG.normal(size=(6, 3, 4))
    which = np.repeat(np.arange(6), [40, 3, 25, 60, 10, 31])
    x = places[which] + RNG.normal(size=(len(which), 3, 4))
    found = clusters(x, 6, seed=3)
    assert found.dtype == np.int64
    pairs = set(zip(which.tolist(), found.tolist(), strict=True))
    assert len(pairs) == len(set(found)) == 6


def test_each_sample_is_nearest_to_the_mean_of_its_cluster() -> None:
    """Where k-means has come to an end; a smaller sum of squares than of any start."""
    x = RNG.normal(size=(300, 5))
    found = clusters(x, 7, components=5)
    means = np.stack([x[found == k].mean(axis=0) for k in range(7)])
    far = np.square(x[:, None] - means).sum(axis=2)
    np.testing.assert_array_equal(far.argmin(axis=1), found)
    np.testing.assert_array_equal(found, clusters(x, 7, components=5))
    assert (found != clusters(x, 7, components=5, seed=1)).any()


def test_only_the_first_components_count() -> None:
    x = np.concatenate([RNG.normal(size=(60, 1)) + 9 * (np.arange(60)[:, None] % 2),
                        RNG.normal(size=(60, 30))], axis=1)  # fmt: skip
    found = clusters(x, 2, components=1)
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    assert found[0] != found[1]


def test_equal_samples_leave_clusters_empty() -> None:
    assert set(clusters(np.ones((9, 2)), 3)) <= {0, 1, 2}
    assert len(set(clusters(np.repeat([[0.0], [1.0]], 5, axis=0), 4))) == 2


def test_wrong_use_is_refused() -> None:
    x = np.zeros((4, 2))
    with pytest.raises(OptionError, match="at most 4"):
        clusters(x, 5)
    with pytest.raises(OptionError, match="count"):
        clusters(x, 0)
    with pytest.raises(OptionError, match="components"):
        clusters(x, 2, components=0)
    with pytest.raises(DataError, match="finite"):
        clusters(np.full((4, 2), np.nan), 2)
    for wrong in (np.zeros(3), np.zeros((0, 2)), np.array([["a", "b"]])):
        with pytest.raises(DataError, match="samples, "):
            clusters(wrong, 1)


def test_a_gan_of_images_is_told_clusters() -> None:
    """Not the digits, and samples have them as often as the images do."""
    x = np.eye(16, dtype=np.float32)[::4]  # a pixel in one of three lines
    x = np.repeat(x[:3], [12, 6, 2], axis=0)
    rows = Images(x, np.full(20, 9), x, np.full(20, 9), (4, 4))
    told, shares = images.clustered(rows, 3)
    assert sorted(shares) == pytest.approx([0.1, 0.3, 0.6])
    model = images.make("gan", (4, 4), (3,), 2, classes=3, shares=shares)
    trainer = images.trainer_of(model, 9, 1e-2, workers=1)
    images.fit(model, trainer, rows, epochs=1, batch_size=10, verbose=False, classes=told)
    made = images.drawn_samples(model, 400)
    drawn = np.random.default_rng([0, 1]).choice(3, 400, p=shares)
    np.testing.assert_array_equal(made, model.sample(400, y=drawn))

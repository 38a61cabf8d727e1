"""Images without slant."""

import numpy as np
import pytest

from fastnn.tasks import images as task
from fastnn.tasks.upright import upright


def covariance(image):
    line, column = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    share = image / image.sum()
    line -= (share * line).sum()
    middle = (share * column).sum()
    return (share * line * (column - middle)).sum(), middle


@pytest.mark.parametrize("lean", [-0.8, 0.0, 0.5])
def test_a_slanted_stroke_becomes_upright_and_stands_in_the_middle(lean):
    image = np.zeros((16, 20))
    for line in range(3, 14):
        image[line, 4 + round(4 + lean * (line - 8)) + np.arange(2)] = 1.0
    found = upright(image.reshape(1, -1), (16, 20)).reshape(16, 20)
    slant, middle = covariance(found.astype(np.float64))
    assert abs(slant) < 0.05 * max(abs(covariance(image)[0]), 1.0)
    assert middle == pytest.approx(9.5, abs=0.01)
    assert found.sum() == pytest.approx(image.sum(), rel=1e-5)
    if lean:
        assert abs(covariance(image)[0]) > 3


def test_images_without_slant_stay_and_no_light_is_no_error():
    images = np.zeros((3, 5, 5), np.float32)
    images[1, :, 2] = 0.5  # upright and in the middle
    images[2, 2, 1:4] = 1.0  # one line
    np.testing.assert_array_equal(upright(images.reshape(3, 25), (5, 5)), images.reshape(3, 25))


def test_clusters_are_those_of_upright_images():
    """Of strokes with one slant or the other, and thick or thin, thickness remains."""
    data = np.zeros((40, 12, 12), np.float32)
    random = np.random.default_rng(0)
    for k in range(40):
        for line in range(12):
            data[k, line, 5 + (1 if k % 2 else -1) * (line - 6) // 2 + np.arange(1 + k // 20)] = 1
    data *= random.uniform(0.9, 1.0, data.shape)
    images = task.Images(data.reshape(40, -1), np.zeros(40, int), data, np.zeros(40, int), (12, 12))
    found, shares = task.clustered(images, 2)
    assert len(set(found[:20])) == len(set(found[20:])) == 1
    assert shares == [0.5, 0.5]

"""A step of the transducer's beam search on CUDA: the CPU's results from the same source."""

from __future__ import annotations

import numpy as np

from tests.kernels.cuda.common import compute_both


def test_a_step() -> None:
    """Hypotheses "", "1" and "12": the first becomes the second by a label, which becomes the
    third; in the second sample all are complete with a blank."""
    logits = np.log(np.random.default_rng(1).dirichlet(np.ones(3), (2, 3))).reshape(2, 9)
    given = dict(
        logits=logits.astype(np.float32), lengths=np.array([4, 1]),
        score=np.float32([[-1.0, -2.0, -3.0]] * 2),
        frame=np.float32([[2, 1, 0], [0, 0, 0]]), count=np.float32([[0, 1, 2]] * 2),
        history=np.float32([[-1, -1, -1, 1, -1, -1, 1, 2, -1]] * 2),
        old_score=np.full((2, 2), -1e30, np.float32), old_count=np.full((2, 2), -1.0),
        old_history=np.full((2, 6), -1.0), best=np.zeros((2, 3)),
        which=np.zeros((2, 3), int), mates=np.zeros((2, 3), int), blank=0,
    )  # fmt: skip
    shapes = dict.fromkeys(("parent", "symbol", "new_score", "new_frame", "new_count"), (2, 3))
    shapes |= {"new_history": (2, 9), "done_history": (2, 6)}
    shapes |= dict.fromkeys(("done_score", "done_count"), (2, 2))
    found = compute_both("transducer_select", np.float32, shapes, exact=True, **given)
    assert (found["done_count"][0] == -1).all()
    assert set(found["done_count"][1]) <= {0.0, 1.0, 2.0}
    histories = {tuple(row) for row in found["new_history"][0].reshape(3, 3)}
    assert len(histories) == 3


def test_frames() -> None:
    x, frame = np.arange(12.0).reshape(1, 3, 4), np.float32([[2, 0, 9]])
    y = compute_both(
        "transducer_frames", np.float32, {"y": (1, 3, 4)}, exact=True, x=x, frame=frame
    )
    np.testing.assert_array_equal(y["y"][0], x[0, [2, 0, 2]])

"""Training that is resumed from a checkpoint goes on bit for bit."""

import numpy as np
import pytest

from fastnn.errors import CheckpointError, DataError
from fastnn.train.callbacks import Callback, ModelCheckpoint, ReduceLROnPlateau
from tests.train.checkpoints import (
    BATCH,
    SAMPLES,
    StopAfter,
    X,
    Y,
    assert_same,
    fit,
    make_trainer,
    state,
)


@pytest.fixture(scope="module")
def uninterrupted():
    trainer = make_trainer(workers=1)
    history = fit(trainer, 4)
    return state(trainer), history


# -------------------------------------------------------------------- resuming


@pytest.mark.parametrize("workers", [1, 3])
def test_resume_between_epochs_is_exact(tmp_path, uninterrupted, workers):
    expected, full = uninterrupted
    first = make_trainer(workers=2)
    fit(first, 2)
    first.save(tmp_path / "run.safetensors")
    second = make_trainer(workers=workers, seed=99)  # the checkpoint's seed counts
    history = fit(second, 4, resume=tmp_path / "run.safetensors")
    assert_same(state(second), expected)
    assert history.epoch == [2, 3]
    for name in full:
        assert history[name] == full[name][2:]


@pytest.mark.parametrize("steps", [1, 4, 6])  # 6 is the epoch's last, smaller step
@pytest.mark.parametrize("workers", [1, 2])
def test_resume_in_the_middle_of_an_epoch_is_exact(tmp_path, uninterrupted, steps, workers):
    expected, full = uninterrupted
    first = make_trainer(workers=2)
    history = fit(first, 4, [StopAfter(1, steps)])
    assert history.stopped == "interrupted"
    assert first.place == (1, min(steps * BATCH, SAMPLES))
    first.save(tmp_path / "run.safetensors")
    second = make_trainer(workers=workers)
    history = fit(second, 4, resume=tmp_path / "run.safetensors")
    assert_same(state(second), expected)
    assert history.epoch == [1, 2, 3]
    for name in full:  # the means of the broken epoch count all of its samples
        assert history[name] == full[name][1:]


def test_ctrl_c_while_steps_run(tmp_path):
    """It comes from `update` at any step; the file says at which."""

    class Interrupt(Callback):
        def update(self, step, logs):
            if step > 10:
                raise KeyboardInterrupt

    x, y = np.tile(X, (2000, 1)), np.tile(Y, 2000)

    def run(epochs, callbacks=(), resume=None):
        trainer = make_trainer()
        trainer.fit(
            x, y, epochs=epochs, batch_size=BATCH, verbose=False, callbacks=callbacks,
            resume=resume,
        )  # fmt: skip
        return trainer

    broken = run(1, [Interrupt()])
    assert broken.history.stopped == "interrupted"
    assert 0 < broken.cursor < len(x)
    assert broken.cursor == broken.step * BATCH
    broken.save(tmp_path / "run.safetensors")
    assert_same(state(run(1, resume=tmp_path / "run.safetensors")), state(run(1)))


def test_iterable_of_batches_resumes(tmp_path):
    class Batches:
        def __iter__(self):
            return ((X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, SAMPLES, BATCH))

        def __len__(self):
            return -(-SAMPLES // BATCH)

    batches = Batches()
    whole = make_trainer()
    whole.fit(batches, epochs=3, verbose=False)
    first = make_trainer()
    first.fit(batches, epochs=3, verbose=False, callbacks=[StopAfter(1, 4)])
    assert first.place == (1, 4 * BATCH)
    first.save(tmp_path / "run.safetensors")
    second = make_trainer()
    history = second.fit(batches, epochs=3, verbose=False, resume=tmp_path / "run.safetensors")
    assert_same(state(second), state(whole))
    assert history["loss"] == whole.history["loss"][1:]


@pytest.mark.parametrize("frequency", ["epoch", 4])
def test_checkpoint_callbacks_files_resume_exactly(tmp_path, uninterrupted, frequency):
    expected, _ = uninterrupted
    name = "{epoch}" if frequency == "epoch" else "{epoch}-{batch}"
    saver = ModelCheckpoint(tmp_path / f"{name}.safetensors", save_freq=frequency)
    first = make_trainer()
    fit(first, 4, [saver])
    assert_same(state(first), expected)
    files = sorted(tmp_path.iterdir())
    assert len(files) == (4 if frequency == "epoch" else 4 * 6 // 4)
    for file in files:
        second = make_trainer()
        fit(second, 4, resume=file)
        assert_same(state(second), expected)


def test_learning_rate_that_a_callback_set_is_kept(tmp_path):
    first = make_trainer()
    fit(first, 2, [ReduceLROnPlateau(patience=1, min_delta=1e9)])
    assert first.learning_rate < 0.02
    first.save(tmp_path / "run.safetensors")
    second = make_trainer()
    second.load(tmp_path / "run.safetensors")
    assert second.learning_rate == first.learning_rate


def test_saving_while_steps_run_is_refused(tmp_path):
    class Save(Callback):
        error = None

        def update(self, step, logs):
            try:
                self.trainer.save(tmp_path / "torn.safetensors")
            except CheckpointError as error:
                self.error = error
                raise KeyboardInterrupt from None

    saver = Save()
    trainer = make_trainer()
    trainer.fit(
        np.tile(X, (2000, 1)), np.tile(Y, 2000), batch_size=BATCH, verbose=False, callbacks=[saver]
    )
    assert "on_epoch_end" in str(saver.error)
    assert list(tmp_path.iterdir()) == []


def test_other_batch_size_in_the_middle_of_an_epoch_is_refused(tmp_path):
    first = make_trainer()
    fit(first, 2, [StopAfter(0, 3)])
    first.save(tmp_path / "run.safetensors")
    with pytest.raises(DataError, match="24 samples of epoch 1"):
        make_trainer().fit(
            X, Y, epochs=2, batch_size=7, verbose=False, resume=tmp_path / "run.safetensors"
        )

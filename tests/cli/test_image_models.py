"""`fastnn train autoencoder`, `vae` and `gan`, and samples of them."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from fastnn import cli

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SMALL = ("--data", "digits", "--epochs", 2, "--hidden", "24", "--batch-size", 64, "--workers", 1)
MEASURES = {
    "autoencoder": r"of components +[\d.]+ of 0\.\d+, which 2 of PCA leave\n",
    "vae": r"test bound +-[\d.]+ nats\n.*of 50 draws +-[\d.]+ nats\n",
    "gan": r"recognised +[\d.]+ % of 10,000 samples, with 0.9 or more\ndigits +each.*"
    r"truncated +[\d.]+ % of 10,000 samples, with 0.9 or more, noise within 0.7\ndigits +each",
}
PICTURES = {
    "autoencoder": {"reconstructions.png"},
    "vae": {"reconstructions.png", "samples.png", "manifold.png"},
    "gan": {"samples.png"},
}


def run(*arguments):
    return CliRunner().invoke(cli.group(), [str(a) for a in arguments])


@pytest.mark.parametrize("channels", ["none", "4,6"])
@pytest.mark.parametrize("kind", MEASURES)
def test_trains_and_draws(kind, channels, tmp_path):
    folder = tmp_path / "run"
    own = ("--latent", 2, "--channels", channels)
    own += ("--truncation", 0.7) if kind == "gan" else ()
    if kind == "gan":
        own += ("--clusters", 12) if channels == "none" else ("--conditional",)
    result = run("train", kind, *SMALL, *own, "--output", folder)
    assert result.exit_code == 0, result.output
    assert re.search(MEASURES[kind], result.stdout, re.DOTALL)
    written = {path.name for path in folder.iterdir()}
    shared = {"model.safetensors", "model.json", "history.csv", "learning-curve.png"}
    assert written == shared | PICTURES[kind]
    picture = tmp_path / "made.png"
    for more in ([], ["--walk"]):
        sampled = run("sample", folder, "--count", 12, "--output", picture, "--seed", 3, *more)
        if kind == "autoencoder":
            assert sampled.exit_code == 1
            assert "no distribution to draw from" in sampled.output
        else:
            assert sampled.exit_code == 0, sampled.output
            assert picture.stat().st_size > 500
    cut = run("sample", folder, "--output", picture, "--truncation", 0.5)
    assert cut.exit_code == (0 if kind == "gan" else 1), cut.output
    if kind == "vae":
        assert "expected with samples of a GAN only, got it with VAE" in cut.output
    text = run("sample", folder, "--prime", "to be")
    assert text.exit_code == 2
    assert "--prime is for models of text only" in text.output
    more = run("train", kind, *SMALL, *own, "--output", folder, "--resume",
               folder / "model.safetensors")  # fmt: skip
    assert more.exit_code == 0, more.output


def test_clusters_stand_for_classes_that_are_not_told():
    result = run("train", "gan", "--conditional", "--clusters", 3)
    assert result.exit_code == 2
    assert "--clusters: expected without --conditional" in result.output


def test_a_checkpoint_gives_the_model_again(tmp_path):
    from fastnn.tasks import images as task

    data = task.load_images("digits")
    model = task.make("vae", (8, 8), (16,), 3, draws=2)
    trainer = task.trainer_of(model, 40, 1e-3, seed=4, workers=1)
    task.fit(model, trainer, data, epochs=1, batch_size=128, verbose=False)
    trainer.save(tmp_path / "model.safetensors")
    task.save_description(tmp_path / "model.safetensors", "vae", (8, 8), (16,), 3, {"draws": 2})
    again, shape = task.load_image_model(tmp_path)
    assert shape == (8, 8)
    assert again.draws == 2
    assert (again.sample(5, seed=2) == model.sample(5, seed=2)).all()
    assert task.drawn_samples(again, 25, walk=True).shape == (25, 64)


def test_what_is_loaded_is_the_average(tmp_path):
    from fastnn.errors import CheckpointError
    from fastnn.tasks import images as task

    data = task.load_images("digits")
    gan = task.make("gan", (8, 8), (16,), 3)
    trainer = task.trainer_of(gan, 40, 3e-3, average=0.9, seed=4, workers=1)
    task.fit(gan, trainer, data, epochs=2, batch_size=128, verbose=False)
    place = tmp_path / "model.safetensors"
    trainer.save(place)
    task.save_description(place, "gan", (8, 8), (16,), 3, {}, average=0.9)
    with trainer.averaged():
        expected = gan.sample(9, seed=2)
    np.testing.assert_array_equal(task.load_image_model(tmp_path)[0].sample(9, seed=2), expected)
    assert np.abs(gan.sample(9, seed=2) - expected).max() > 1e-3
    task.trainer_of(gan, 40, 3e-3, seed=4, workers=1).save(place)
    task.save_description(place, "gan", (8, 8), (16,), 3, {}, average=0.9)
    with pytest.raises(CheckpointError, match="expected averages of the parameters"):
        task.load_image_model(tmp_path)
    assert [task.decay_for(steps) for steps in (5, 100, 13132)] == [0.0, 0.9, 0.999]


def test_the_generator_has_a_rate_of_its_own():
    from fastnn.tasks import images as task

    data = task.load_images("digits")
    units = {"discriminator_units": 6, "generator_units": 5}
    gan = task.make("gan", (8, 8), (), 3, (2, 3), **units)
    trainer = task.trainer_of(gan, 100, 1e-2, 1e-12, seed=4, workers=1)
    before = {name: np.array(p) for name, p in gan.named_parameters().items()}
    task.fit(gan, trainer, data, epochs=1, batch_size=480, verbose=False)
    moved = {
        n: float(np.abs(np.array(p) - before[n]).max()) for n, p in gan.named_parameters().items()
    }
    for name, distance in moved.items():
        if name.startswith("generator"):
            assert distance < 1e-9, name
    assert max(moved.values()) > 1e-3


def test_components_leave_what_they_leave():
    """Beside scikit-learn's."""
    from sklearn.decomposition import PCA

    from fastnn.tasks import images as task

    data = task.load_images("digits")
    pca = PCA(7).fit(data.train)
    left = np.square(data.test - pca.inverse_transform(pca.transform(data.test))).mean()
    assert task.component_error(data, 7) == pytest.approx(left, rel=1e-3)


def test_what_would_be_lost_or_ignored_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = run("train", "vae", *SMALL, "--output", tmp_path / "file" / "run")
    assert result.exit_code == 1
    assert "cannot be made: Not a directory; choose another with --output" in result.output
    assert "epoch 1" not in result.output
    wrong = run("train", "gan", *SMALL, "--channels", "8,x", "--output", tmp_path / "run")
    assert "expected sizes such as 256,128, got '8,x'" in wrong.output
    plain = run("train", "gan", *SMALL, "--channels", "none", "--generator-units", 8)
    assert plain.exit_code == 2
    assert "expected with --channels only" in plain.output
    weighed = run("train", "gan", *SMALL, "--penalty-weight", 3, "--output", tmp_path / "run")
    assert weighed.exit_code == 1
    assert "expected a penalty to weigh, got none" in weighed.output

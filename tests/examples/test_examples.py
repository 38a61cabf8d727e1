"""The examples run, and do what they say, with small settings."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn.generative import WaveNet
from fastnn.tasks.wavenet import save_description, spoken
from tests.tasks.conftest import few_words, rhyme, tones  # noqa: F401  (fixtures)

FOLDER = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn", reason="the examples' digits come with scikit-learn")


def load(name):
    """An example as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: arguments, what main returns has to pass this, what it has to print
EXAMPLES = {
    "mlp_digits": (["--epochs", "4", "--quiet"], lambda r: r > 0.9, "test accuracy"),
    "own_loop": (["--steps", "300"], lambda r: r > 0.9, "gradient norm"),
    "optimizers": (
        ["--epochs", "3", "--only", "adam", "muon", "lbfgs", "--full-epochs", "30", "--in-all"],
        lambda r: r.keys() == {"adam", "muon", "lbfgs"} and max(r.values()) < 0.05,
        "| adam |",
    ),
    "experiments": (
        ["all", "--epochs", "1", "--seeds", "1"],
        lambda r: len(r) == 7 and float(r["universality"][-1][1]) < 0.1,
        "| hidden layers |",
    ),
    "regularisers": (
        ["--epochs", "300", "--only", "none", "L2Penalty(1e-2)", "DropConnect", "EarlyStopping"],
        lambda r: r["none"][0] == 0 and r["L2Penalty(1e-2)"][1] < r["none"][1] - 5,
        "of others",
    ),
    "custom_op": (["--epochs", "4"], lambda r: r > 0.85, "the gradients agree"),
    "autoencoder": (["--epochs", "6"], lambda r: r > 0.3, "of the test digits' variance"),
    "pretraining": (
        ["--data", "digits", "--layers", "60,60", "--pretrain-epochs", "5", "--batch-size", "20"],
        lambda r: max(r["with"]) < 15 and len(r["without"]) == 1,
        "with pre-training:",
    ),
    "few_labels": (
        ["--epochs", "4", "--labels", "50", "--repeats", "1", "--latent", "32"],
        lambda r: r[50][0] < 12,
        "labels a class",
    ),
    "gan_digits": (["--epochs", "25"], lambda r: r[0] >= 2 and r[1] > 0.4, "classes made"),
    "doubled_symbols": (
        ["--epochs", "20"],
        lambda r: (
            r["trimmed"].pop("doubled") == 0.0 and min(min(v.values()) for v in r.values()) > 0.95
        ),
        "letters alone",
    ),
    "gpu_digits_mlp": (["--epochs", "3", "--check"], lambda r: r[-1] < 0.6 * r[0], "agree to"),
}


def test_every_example_is_here():
    assert {p.stem for p in FOLDER.glob("*.py")} >= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, capsys):
    arguments, good, text = EXAMPLES[name]
    result = load(name).main(arguments)
    assert good(result), result
    assert text in capsys.readouterr().out


#: examples on data that need a download: arguments for small data of the kind
LARGE = {
    "gpu_char_lm": ["--epochs", "2", "--hidden", "16", "--streams", "4", "--check", "--write", "9"],
    "gpu_spoken_digits": ["--epochs", "2", "--hidden", "8", "--layers", "1", "--check"],
}


@pytest.mark.parametrize("name", LARGE)
def test_example_on_small_data(name, rhyme, tones, capsys):  # noqa: F811
    data = rhyme if name == "gpu_char_lm" else tones.official_split()
    losses = load(name).main(LARGE[name], data)
    assert losses[-1] < losses[0]
    assert "agree to" in capsys.readouterr().out


def noisy_digits(count):
    """Images of MNIST's shape: a bright row says which digit it is."""
    source = np.random.default_rng(count)
    labels = source.integers(0, 10, count)
    images = source.uniform(0, 0.3, (count, 28, 28)).astype(np.float32)
    images[np.arange(count), 2 * labels + 4] = 1.0
    return images, labels


def test_mnist_mlp(capsys):
    data = [(x.reshape(len(x), -1), y) for x, y in (noisy_digits(400), noisy_digits(100))]
    names, arguments = ["plain", "dropout", "dropconnect", "standout"], ["--units", "40"]
    run = load("mnist_mlp").main
    errors = run([*names, *arguments, "--epochs", "100", "--every", "3"], data)
    # whose weights begin small: it takes long to leave the beginning
    errors |= run(["maxout", *arguments, "--epochs", "500", "--every", "200"], data)
    assert errors.keys() == {*names, "maxout"}
    assert max(map(max, errors.values())) < 60.0
    assert "epoch 3" in capsys.readouterr().out


def test_deep_autoencoder(capsys):
    data = noisy_digits(100)[0], noisy_digits(50)[0]
    found = load("deep_autoencoder").main(["--seconds", "0.5"], data)
    assert found.keys() == {"Adam", "Hessian-free"}
    assert found["Hessian-free"] < 300.0
    assert "epoch 1" in capsys.readouterr().out


def test_wavenet_picture(tones, tmp_path, capsys):  # noqa: F811
    net = WaveNet(levels=8, channels=2, skip=3, layers=2, cycle=2, classes=10)
    net.save(tmp_path / "net.safetensors")
    save_description(tmp_path / "net.safetensors", net)
    picture = tmp_path / "said.png"
    arguments = [
        tmp_path / "net.safetensors",
        "--digits",
        "2",
        "1",
        "--seconds",
        "0.1",
        "--picture",
    ]
    said = load("wavenet_picture").main([*map(str, arguments), str(picture)], tones)
    assert list(said) == [2, 1]
    for digit, ((_, recorded), (_, drawn)) in said.items():
        assert recorded is tones.waveforms[list(tones.labels).index(digit)]
        np.testing.assert_array_equal(drawn, spoken(net, [2, 1], 0.1)[int(digit == 1)])
    assert picture.stat().st_size > 1000
    assert "picture" in capsys.readouterr().out


def test_image_models(tmp_path, capsys):
    pictures = tmp_path / "rows.png", tmp_path / "filters.png"
    places = ["--picture", str(pictures[0]), "--filters", str(pictures[1])]
    small = ["--data", "digits", "--epochs", "30", "--latent", "6"]
    main = load("image_models").main
    found = main(["autoencoders", *small, *places, "--kinds", "denoising", "convolutional"])
    assert list(found) == ["denoising", "convolutional"]
    assert found["convolutional"]["error"] < 0.03
    # which has learned what to put in the place of what is missing
    assert found["denoising"]["damaged"] < 0.6 * found["convolutional"]["damaged"]
    assert min(picture.stat().st_size for picture in pictures) > 1000
    pictures[0].unlink()
    found = main(["conditional-vae", *small, *places])
    assert pictures[0].stat().st_size > 1000
    assert -64 * np.log(2) < found["bound"] < 0  # better than coins
    assert found["right"] > 0.2  # nobody knows the digit by chance
    assert "6 components: error" in capsys.readouterr().out


def test_measures_of_image_models():
    """Codes of one number or of equal ones, which noise moves by as much as it is."""

    class Known:
        def __init__(self, code):
            self.code = np.asarray(code)

        def encode(self, x):
            return x @ self.code

        def reconstruct(self, x):
            return np.zeros_like(x)

    x = np.random.default_rng(0).choice([1.0, 3.0], (5000, 4))
    measures = load("image_models").measures
    single = measures(Known(np.eye(4)[:, :1] * [[1.0, 0.0, 0.0, 0.0]]), x, x)
    assert single["sparse"] == pytest.approx(1.0)
    assert single["error"] == pytest.approx(np.square(x).mean())
    # the mean of |N(0, 0.1)| beside that of 0 or 2
    assert single["moved"] == pytest.approx(0.1 * np.sqrt(2 / np.pi) / 1.0, rel=0.05)
    assert measures(Known(np.ones((4, 9))), x, x)["sparse"] == pytest.approx(0.0, abs=1e-12)


def test_log_bilinear(few_words, capsys):  # noqa: F811
    arguments = ["--features", "16", "--order", "3", "--epochs", "8", "--lr", "0.03"]
    example = load("log_bilinear")
    valid, test = example.main([*arguments, "--dropout", "0", "--workers", "1"], few_words)
    assert 1.0 < valid < 1.2  # one of two words in one of six places: 2 ** (1/6)
    assert 1.0 < test < 1.2
    assert "epoch 8, " in capsys.readouterr().out
    # each word but the first counts once, after all words that the model looks at
    _, y = example.sequences(np.arange(1000), order=5)
    counted = y[y >= 0]
    np.testing.assert_array_equal(counted, np.arange(1, len(counted) + 1))
    assert len(counted) > 900
    assert min(np.flatnonzero(row >= 0)[0] for row in y[1:]) == 5


MORE = ("mnist_mlp", "deep_autoencoder", "wavenet_picture", "image_models", "log_bilinear")


@pytest.mark.parametrize("name", [*EXAMPLES, *LARGE, *MORE])
def test_the_first_lines_say_how_to_run_it(name):
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert f"python examples/{name}.py" in text


def test_as_a_program():
    """In `__main__`, where users' kernels are defined most of the time."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "custom_op.py"), "--epochs", "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "the gradients agree" in done.stdout


def test_several_processes_train_one_model():
    done = subprocess.run(
        [sys.executable, FOLDER / "data_parallel.py", "--processes", "3", "--epochs", "5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 processes, test accuracy 0.9" in done.stdout
    assert "their parameters are the same" in done.stdout

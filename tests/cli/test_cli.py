"""The command line: what it says, what it writes, its exit codes."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import fastnn
from fastnn import cli
from fastnn.cli import options as cli_options
from fastnn.runtime.cpu import ahead, compiler
from fastnn.train.options import optimizers
from fastnn.train.trainer import Trainer

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def run(*arguments, **more):
    return CliRunner().invoke(cli.group(), [str(a) for a in arguments], **more)


def program(*arguments):
    command = [sys.executable, "-m", "fastnn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path):
    """Options of a short run."""
    return ["train", "digits", "--hidden", "16", "--epochs", "2", "--output", tmp_path / "run"]


# -------------------------------------------------------------------- train


def test_train_writes_what_it_says(tmp_path, small):
    pytest.importorskip("matplotlib")
    result = run(*small)
    assert result.exit_code == 0, result.output
    for name in ("model.safetensors", "history.csv", "learning-curve.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100
        assert str(tmp_path / "run" / name) in result.stdout
    accuracy = re.search(r"test accuracy +([\d.]+) % of 359 images", result.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 50
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy"
    assert len(lines) == 3
    assert "epoch 2/2" in result.stderr
    assert "val_accuracy" in result.stderr


def test_defaults_reach_98_percent(tmp_path):
    result = run("train", "digits", "--quiet", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr in ("", *re.findall("compiling.*\n", result.stderr))
    accuracy = re.search(r"test accuracy +([\d.]+) %", result.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 98


def test_no_matplotlib_is_said_and_no_harm(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run(*small)
    assert result.exit_code == 0
    assert "no picture: plotting needs matplotlib" in result.stderr
    assert "learning-curve.png" not in result.stdout
    assert "test accuracy" in result.stdout


def test_everything_is_compiled_before_the_first_step(small, monkeypatch):
    fit = Trainer.fit
    counts = []

    def counted(self, *arguments, **options):
        counts.append(compiler.compiled_count)
        history = fit(self, *arguments, **options)
        counts.append(compiler.compiled_count)
        return history

    monkeypatch.setattr(Trainer, "fit", counted)
    monkeypatch.setattr(ahead, "FEW", 1)
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    assert run(*small).exit_code == 0
    assert counts[0] == counts[1]


def test_ctrl_c_saves_and_resume_goes_on(tmp_path, small, monkeypatch):
    import fastnn.train.progress

    def interrupt(self, epoch, logs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fastnn.train.progress.ProgressBar, "on_epoch_end", interrupt)
        result = run(*small)
    assert result.exit_code == 130
    checkpoint = tmp_path / "run" / "model.safetensors"
    assert f"interrupted in epoch 2; resume with the same options and --resume {checkpoint}" in (
        result.stdout
    )
    resumed = run(*small, "--resume", checkpoint)
    longer = run(*small, "--epochs", 9, "--resume", checkpoint)
    assert longer.exit_code == 1
    assert re.search(
        r"differs: schedule: duration: expected \d+, got \d+\. .*--epochs among", longer.stderr
    )
    whole = run(*small[:-1], tmp_path / "whole")
    assert resumed.exit_code == whole.exit_code == 0
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    first, second = (load_file(f) for f in (checkpoint, tmp_path / "whole" / "model.safetensors"))
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
@pytest.mark.parametrize("writing", [False, True])
def test_sigterm_saves_and_ends_with_143(tmp_path, small, monkeypatch, writing):
    """In training, and while the checkpoint is written."""
    import fastnn.train.progress

    def terminate(*given):
        signal.raise_signal(signal.SIGTERM)
        return save(*given) if writing else None

    save = Trainer.save
    place = (Trainer, "save") if writing else (fastnn.train.progress.ProgressBar, "on_epoch_end")
    with monkeypatch.context() as patched:
        patched.setattr(*place, terminate)
        result = run(*small)
    assert result.exit_code == 143, result.output
    checkpoint = tmp_path / "run" / "model.safetensors"
    said = "interrupted after training" if writing else "interrupted in epoch 2; resume with"
    assert said in result.output
    assert f"--resume {checkpoint}" in result.output
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = run(*small, "--resume", checkpoint)
    assert resumed.exit_code == 0, resumed.output


def test_ctrl_c_before_training(small, monkeypatch):
    def interrupt(wanted):
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "ensure", interrupt)
    result = run(*small)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_a_batch_larger_than_the_data_is_cut(small, caplog):
    with caplog.at_level("WARNING", "fastnn"):
        assert run(*small, "--batch-size", "5000").exit_code == 0
    assert "batch_size 5000 is more than the 1438 samples" in caplog.text


def test_hints_can_be_pasted(capsys):
    trainer, history = SimpleNamespace(place=(1,)), SimpleNamespace(stopped="interrupted")
    written = [("checkpoint", Path("/my runs/m.safetensors"))]
    with pytest.raises(click.exceptions.Exit):
        cli_options.conclude(click.Context(click.Command("x")), trainer, history, written, [])
    assert "in epoch 2; " in (said := capsys.readouterr().out)
    assert said.endswith("--resume '/my runs/m.safetensors'\n")


def test_output_in_an_encoding_that_lacks_a_sign(monkeypatch):
    def echo(*_, **__):
        "ä猫".encode("latin-1")

    monkeypatch.setattr("click.echo", echo)
    result = run("info")
    assert result.exit_code == 1
    assert "in latin-1, which has no '\\u732b'; set PYTHONIOENCODING=utf-8" in result.stderr


def test_who_reads_the_output_may_stop(monkeypatch):
    """`fastnn tag big.txt | head` ends without a word."""

    def echo(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("click.echo", echo)
    result = run("info")
    assert (result.exit_code, result.stderr) == (1, "")


def test_debug_shows_where_an_error_came_from(small, monkeypatch):
    monkeypatch.setenv("FASTNN_DEBUG", "1")
    result = run(*small, "--optimizer", "sdg")
    assert isinstance(result.exception, fastnn.errors.OptionError)


def test_output_that_is_a_file(tmp_path, small):
    (tmp_path / "run").write_text("")
    result = run(*small)
    assert result.exit_code == 2
    assert "is a file" in result.stderr


# -------------------------------------------------------------------- warmup


def test_warmup_compiles_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_loaded", {})
    few = [("advance", "float32", ""), ("mean", "float32", ""), ahead.LOOP[0]]
    monkeypatch.setattr(ahead, "common_variants", lambda dtypes: few)
    result = run("warmup", "--jobs", "2", "-v")
    assert result.exit_code == 0, result.output
    assert "3 of 3 kernels compiled" in result.stdout
    seconds = [float(s) for s in re.findall(r"^ +([\d.]+) s  ", result.stdout, re.MULTILINE)]
    assert len(seconds) == 3
    assert seconds == sorted(seconds, reverse=True)
    assert ahead.cache_size()[0] == 3
    assert "0 of 3 kernels compiled" in run("warmup").stdout


def test_warmup_says_what_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(ahead, "common_variants", lambda dtypes: [ahead.LOOP[0]])
    monkeypatch.setattr(ahead.sys, "executable", "/bin/false")
    result = run("warmup")
    assert result.exit_code == 1
    assert "1 kernels were not compiled" in result.stderr


def test_warmup_for_a_gpu(monkeypatch):
    from fastnn.kernels.declare import CUDA_KERNELS
    from fastnn.runtime.cuda import ahead as cuda_ahead

    asked = []
    monkeypatch.setattr(cuda_ahead, "compile_missing", lambda wanted: asked.extend(wanted) or 7)
    result = run("warmup", "--device", "cuda", "--capability", "9.0")
    assert result.exit_code == 0, result.output
    assert f"7 of {len(asked)} kernels compiled for 9.0" in result.stdout
    assert {v[3] for v in asked} == {(9, 0)}
    names = {v[0].name for v in asked}
    assert {"linear_forward", "sgd_momentum_update", "adam_amsgrad_update"} <= names
    parts = {part for name in names for part in name.split("+")}  # some are joined in one launch
    assert parts <= set(CUDA_KERNELS)


def test_warmup_refuses_options_that_mean_nothing():
    for options in (
        ["--capability", "9.0"],
        ["--device", "cuda", "--capability", "nine"],
        ["--device", "cuda", "--dtype", "both", "--capability", "9.0"],
    ):
        result = run("warmup", *options)
        assert result.exit_code != 0
        assert "expected" in result.stderr


def test_warmup_for_digits_covers_the_run():
    from fastnn.cli.train import digits_trainer, digits_variants
    from fastnn.cli.warmup import _digits
    from fastnn.data.digits import load_digits

    needed = digits_variants(digits_trainer(steps=9), *load_digits(), 32)
    assert len(needed) > 15
    assert set(needed) <= set(_digits("float32"))


def test_help_and_version():
    assert f"fastnn {fastnn.__version__}" in run("--version").stdout
    text = run("--help").stdout
    assert all(name in text for name in ("train", "info", "warmup"))
    assert "--hidden" in run("train", "digits", "--help").stdout
    assert run("fly").exit_code == 2


# -------------------------------------------------------------------- as a program


def test_programs_exit_codes(tmp_path):
    done = program("train", "digits", "--epochs", "1", "--hidden", "16", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    failed = program("train", "digits", "--device", "cuda", "--output", tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith("Error: device='cuda' cannot be used")
    assert len(failed.stderr.splitlines()) == 1
    assert program("info").returncode == 0
    assert program("warmup", "--jobs", "0").returncode == 2


FULL_BATCH = {"cg", "hessian_free", "lbfgs", "levenberg_marquardt"}


def test_help_lists_every_optimizer_of_mini_batches():
    words = run("train", "digits", "--help").stdout.replace(",", " ").replace(".", " ").split()
    assert set(optimizers()) - set(words) == FULL_BATCH


def test_help_loads_neither_numba_nor_numpy():
    code = (
        "import sys; from click.testing import CliRunner; from fastnn import cli; "
        "CliRunner().invoke(cli.group(), ['--help']); "
        "print(sorted({'numpy', 'numba', 'llvmlite', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["char-lm"], "No such command 'char-lm'. Did you mean 'train char-lm'?"),
        (["train", "digts"], "No such command 'digts'. Did you mean 'digits'?"),
        (["train", "spoken_digits"], "Did you mean 'spoken-digits'"),
        (
            ["qqqq"],
            "No such command 'qqqq'. There is train, sample, translate, recognise, transcribe, "
            "tag, remember, info, warmup.",
        ),
    ],
)
def test_unknown_commands_get_a_suggestion(words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("text", ["", ",", "64,", " "])
def test_empty_hidden_is_refused(small, text):
    result = run(*small, "--hidden", text)
    assert result.exit_code == 2
    assert "expected sizes such as 256,128" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_three_ctrl_c_within_milliseconds_keep_the_checkpoint(tmp_path):
    """Whether they come while steps run, at an epoch's end, or while the checkpoint is written."""
    command = [
        sys.executable, "-m", "fastnn", "train", "digits", "--epochs", "100000", "--hidden", "8",
        "--workers", "1", "--output", str(tmp_path),
    ]  # fmt: skip
    for pause in (0.0, 0.002, 0.011):
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stderr is not None
            for _ in range(3):
                assert process.stderr.readline().startswith(b"epoch ")
            for _ in range(3):
                process.send_signal(signal.SIGINT)
                time.sleep(pause)
            out, error = process.communicate(timeout=300)
        assert process.returncode == 130, error
        assert b"--resume" in out
        assert b"Traceback" not in error
        assert load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        assert not [name for name in os.listdir(tmp_path) if name.endswith("tmp")]

"""The session on a GPU, each part small and without a GPU; and how it goes on when a part fails."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import gpu, gpu_feeding, gpu_models, gpu_session, gpu_smoke, gpu_timing
from benchmarks.gpu_session import Part, Session

ROOT = Path(__file__).parents[1]
PEERS = ("benchmark", "torch.compile")
#: for pytest in processes: to load other packages' plugins takes it most of a second
QUICK_START = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
#: topics whose kernels share memory of a block, and which file of tests launches them
LAUNCHED_BY = {
    **dict.fromkeys(("embedding", "feed", "metrics", "step"), "rows"), "loss": "softmax",
    "reduce": "elementwise", **dict.fromkeys(("gru", "lstm", "rnn"), "recurrent"),
}  # fmt: skip


def shares(path: Path) -> bool:
    """Whether a kernel's source has barriers, or shared memory of its own."""
    return bool(re.search(r"syncthreads|shared\.array", path.read_text()))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def small(folder: Path, only: str = "") -> dict[str, dict[str, Any]]:
    """The rows of a small session, by name."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OUT", "SPENT")} | QUICK_START
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_session", "--small", "--results", str(folder),
         "--only", only],
        cwd=ROOT, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    content = json.loads((folder / "gpu-session.json").read_text())
    for row in content["parts"]:
        assert row["result"] == "passed", done.stdout[-6000:]
    return {row["name"]: row for row in content["parts"]}


@pytest.mark.parametrize(
    "name", [part.name for part in gpu_session.parts() if part.name not in PEERS]
)
def test_each_part_small(name: str, tmp_path: Path) -> None:
    rows = small(tmp_path, name)
    assert list(rows) == [name]  # "compile" alone, and not "torch.compile" with it
    row = rows[name]
    if name in ("kernels", "runtime", "guards", "trainings"):
        assert row["tests"] > 3
    assert f"== {name}: passed" in (tmp_path / "gpu-session.txt").read_text()
    if name == "feeding":
        rows = json.loads((tmp_path / "gpu-feeding.json").read_text())["rows"]
        assert all(row["iterable"]["host"] > 0 for row in rows)


@pytest.mark.peers
def test_the_benchmark_small_and_then_compiled(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    small(tmp_path, "benchmark")
    (row,) = json.loads((tmp_path / "gpu-small.json").read_text())["rows"]
    assert row["name"].startswith("GRU")
    assert set(row["ratios"]) == {"eager", "graph"}
    assert row["best"] in row["ratios"]
    assert all(side["host"] > 0 for side in row["seconds"].values())
    assert list(small(tmp_path, "torch.compile")) == ["torch.compile"]
    rows = json.loads((tmp_path / "gpu-small.json").read_text())["rows"]
    assert [set(row["ratios"]) for row in rows if row["name"].startswith("MLP")] == [
        {"reduce-overhead"}
    ]


@pytest.mark.peers
@pytest.mark.parametrize("only", ["convolutions", "attention", "CTC"])
def test_rows_of_later_kernels_agree_with_their_peer(
    only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark compares gradients before it takes times."""
    pytest.importorskip("torch")
    given = ["gpu", "--device", "cpu", "--small", "--turns", "1", "--budget", "0.001"]
    given += ["--ways", "quick", "--only", only, "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "gpu-small.json").read_text())["rows"]
    assert [row["name"].split()[0] for row in rows] == [only]
    assert 0 < rows[0]["difference"] < 1e-4
    assert rows[0]["ratios"]["eager"] > 0


def test_all_parts_fit_into_ten_minutes() -> None:
    found = gpu_session.parts()
    assert sum(part.seconds for part in found) <= gpu_session.TOTAL < 600
    names = [part.name for part in found]
    assert names.index("kernels") < names.index("recurrent") < names.index("runtime")
    assert names.index("memcheck") < names.index("benchmark")
    assert names[-1] == "torch.compile"
    assert [part.name for part in gpu_session.small_parts()] == names


def test_parts_have_their_settings() -> None:
    found = {part.name: part for part in gpu_session.parts()}
    for tool in ("memcheck", "racecheck"):  # which see an access one byte past the end then
        assert found[tool].environment == {"FASTNN_CUDA_GUARD": "exact"}
        assert found[tool].commands[0][1:3] == ["--tool", tool]
    assert found["guards"].environment == {"FASTNN_CUDA_GUARD": "1"}
    assert found["trainings"].environment == {"FASTNN_DEVICE": "cuda"}
    assert [found[name].commands[0][-1] for name in PEERS] == ["quick", "compiled"]


def test_every_row_has_a_captured_graph_among_its_peers_and_compiles_last() -> None:
    for case in gpu_models.cases():
        quick, later = (
            gpu_timing.chosen(case.ways, SimpleNamespace(ways=ways))
            for ways in ("quick", "compiled")
        )
        assert {"eager", "graph"} <= set(quick), case.name
        assert not {"reduce-overhead", "compile"} & set(quick)
        assert set(later) <= {"reduce-overhead", "compile"}
        assert {*quick, *later} == set(case.ways) >= set(case.goal)


def test_rows_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the folder, and to OUT: whoever ends the benchmark has them all."""
    folder, out = tmp_path / "results", tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setattr(gpu, "device_facts", lambda options: {})
    options = SimpleNamespace(small=True, precision="highest", ways="quick", results=folder)
    row: dict[str, Any] = {"ratios": {"eager": 2.0}, "seconds": {}, "goal": {}}

    def written(name: str) -> list[str]:
        texts = {(place / f"{name}.json").read_text() for place in (folder, out)}
        (content,) = map(json.loads, texts)
        return [row["name"] for row in content["rows"] + content.get("failed", [])]

    results = gpu.Results(options)
    results.add({"name": "a", **row})
    assert written("gpu-small") == ["a"]
    results.fail("b", ValueError("no memory"))
    assert written("gpu-small") == ["a", "b"]
    results.add({"name": "c", **row})
    again = gpu.Results(SimpleNamespace(**{**vars(options), "ways": "compiled"}))
    again.add({"name": "a", **row, "ratios": {"reduce-overhead": 1.5}})
    assert written("gpu-small") == ["a", "c", "b"]
    assert again.rows["a"]["best"] == "reduce-overhead"

    seen: list[list[str]] = []

    def measured(size: tuple[int, ...], *_: Any) -> dict[str, Any]:
        seen.append(written("gpu-feeding") if seen else [])
        return {"name": str(len(seen))}

    monkeypatch.setattr(gpu_feeding, "row", measured)
    monkeypatch.setattr(sys, "argv", ["gpu_feeding", "--results", str(folder)])
    gpu_feeding.main()
    assert seen == [[], ["1"]]
    assert written("gpu-feeding") == ["1", "2"]


@pytest.mark.parametrize(("far", "status"), [(1e-5, 0), (1e-3, 1), (math.nan, 1)])
def test_a_loss_far_from_the_cpus_fails(
    far: float, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(kind: str, device: str, *_: Any) -> list[float]:
        return [1.0, 0.5 + (far if device == "cuda" else 0.0)]

    monkeypatch.setattr(gpu_smoke, "losses", losses)
    monkeypatch.setattr(sys, "argv", ["gpu_smoke", "--only", "GRU"])
    with pytest.raises(SystemExit) as ended:
        gpu_smoke.main()
    assert ended.value.code == status


def test_results_are_there_after_every_part(tmp_path: Path) -> None:
    session = Session(tmp_path)

    def rows() -> list[tuple[str, str]]:
        content = json.loads((tmp_path / "gpu-session.json").read_text())
        return [(row["name"], row["result"]) for row in content["parts"]]

    session.run(Part("good", 60, [python("print('12 passed')"), python("print('3 passed')")]))
    assert rows() == [("good", "passed")]
    assert session.rows[0]["tests"] == 15
    session.run(Part("bad", 60, [python("print('fine')"), python("raise SystemExit(3)")]))
    session.run(Part("absent", 60, [["a-program-that-is-not-there"]]))
    session.run(Part("after", 60, [python("print('still')")]))
    assert rows()[1:] == [("bad", "exit 3"), ("absent", "exit 127"), ("after", "passed")]
    assert "still" in (tmp_path / "gpu-session.txt").read_text()


def test_a_part_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    child = "import subprocess, sys, time\n"
    child += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    child += "print('child', p.pid, flush=True)\ntime.sleep(600)"
    session = Session(tmp_path)
    session.run(Part("slow", 3, [python(child)]))
    assert session.rows[0]["result"] == "took too long"
    number = int(re.findall(r"child (\d+)", "\n".join(session.text))[0])
    for _ in range(6_000):  # on a busy machine it takes a while to die of its signal
        if not _runs(number):
            break
        time.sleep(0.01)
    assert not _runs(number)


def test_all_of_a_part_that_takes_too_long_are_asked_to_stop_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not one after another, each after the five seconds of the one before."""
    asked: list[tuple[int, int]] = []

    class Deaf:
        def __init__(self, command: list[str], **_: Any):
            self.pid = int(command[0])

        def poll(self) -> int | None:
            return -signal.SIGKILL if (self.pid, signal.SIGKILL) in asked else None

        def wait(self, timeout: float | None = None) -> int | None:
            if self.poll() is None:
                raise subprocess.TimeoutExpired("deaf", timeout or 0.0)
            return self.poll()

    monkeypatch.setattr(gpu_session.subprocess, "Popen", Deaf)
    monkeypatch.setattr(os, "killpg", lambda *given: asked.append(given))
    _, statuses = gpu_session.side_by_side(Part("deaf", 1, [["1"], ["2"]]), 0.1)
    assert statuses == [124, 124]
    assert asked == [(k, s) for s in (signal.SIGINT, signal.SIGKILL) for k in (1, 2)]


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:  # it is gone, or goes while it is read
        return False


def test_what_has_no_time_left_is_said_and_not_run(tmp_path: Path) -> None:
    session = Session(tmp_path, total=0.5)
    session.run(Part("late", 60, [python("raise SystemExit(3)")]))
    assert session.rows[0]["result"] == "no time was left"


def test_results_are_copied_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("OUT", str(out))
    Session(tmp_path / "results").run(Part("one", 60, [python("print(1)")]))
    assert sorted(path.name for path in out.iterdir()) == ["gpu-session.json", "gpu-session.txt"]


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_gets_copies_that_are_asynchronous_and_blocks_that_wait(tool: str) -> None:
    command = gpu_session.sanitizer(tool, "-k", gpu_session.QUICK)
    tests = command[command.index("pytest") + 1 :]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "--collect-only"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **QUICK_START, "PYTEST_ADDOPTS": "", "NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip
    for name in ("test_a_whole_tile", "test_shapes", "test_outputs_agree_with_plain_loops",
                 "test_blocks_wait_for_the_slowest"):  # fmt: skip
        assert f"::{name}" in done.stdout, done.stdout + done.stderr
    for file in gpu_session.SHARING.split():  # threads that share memory of their block
        assert f"test_{file}.py::" in done.stdout, file
    topics = {path.parent.name for path in (ROOT / "kernels").glob("*/cuda*.py") if shares(path)}
    assert {LAUNCHED_BY.get(topic, topic) for topic in topics} <= set(gpu_session.SHARING.split())


def test_shares_are_all_tests_each_once() -> None:
    def collected(*arguments: str, **environment: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--collect-only", *arguments,
             "tests/plan/test_verify.py"],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, **QUICK_START, "PYTEST_ADDOPTS": "", **environment},
        )  # fmt: skip
        return [line for line in done.stdout.splitlines() if "::" in line]

    whole = collected()
    parts = [collected("-p", "benchmarks.share", SHARE=f"{k}/3") for k in range(3)]
    assert len(whole) > 5
    assert sorted(test for part in parts for test in part) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_verdicts() -> None:
    row: dict[str, Any] = {
        "name": "n", "goal": {"eager": 1.5, "reduce-overhead": 1.2},
        "ratios": {"eager": 2.0, "copy": 0.1}, "seconds": {"fastnn": {}, "eager": {}},
    }  # fmt: skip
    gpu_timing.judge(row)
    assert (row["best"], row["times_best"], row["verdict"]) == ("eager", 2.0, "open")
    more: dict[str, Any] = {"ratios": {"reduce-overhead": 1.1}, "seconds": {"reduce-overhead": {}}}
    both = gpu_timing.joined(row, more)
    assert (both["best"], both["times_best"], both["verdict"]) == ("reduce-overhead", 1.1, "short")
    both = gpu_timing.joined(row, {"ratios": {"reduce-overhead": 1.3}, "seconds": {}})
    assert both["verdict"] == "met"


def test_wheels_are_installed_without_a_network(tmp_path: Path) -> None:
    """With a stand-in for Python that writes down what it is asked for."""
    log, wheels, fake = tmp_path / "log", tmp_path / "wheels", tmp_path / "python"
    wheels.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$*" >>{log}\n'
        'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; fi\n'
    )
    fake.chmod(0o755)
    environment = {
        **os.environ, "PYTHON": str(fake), "WHEELS": str(wheels), "VENV": str(tmp_path / "venv"),
    }  # fmt: skip
    for _ in range(2):
        done = subprocess.run(
            ["bash", str(ROOT / "benchmarks" / "gpu_session.sh"), "--only", "info"],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--no-index" in line and str(wheels) in line for line in installs)
    assert sum("venv" in line.split() for line in lines) == 1  # it is kept
    assert lines[-1] == "-m benchmarks.gpu_session --only info"
    makefile = (ROOT / "Makefile").read_text()
    assert '"$(TORCH)"' in makefile.split("\nwheels:")[1].split("\n\n")[0]


def test_a_machine_that_has_the_packages_gets_only_what_lies_in_wheels(tmp_path: Path) -> None:
    """With a stand-in for Python, all of whose packages are in one folder."""
    log, wheels, fake, site = (tmp_path / name for name in ("log", "wheels", "python", "site"))
    own, toolkit = tmp_path / "own", tmp_path / "toolkit"
    for folder in (wheels, site, own, toolkit):
        folder.mkdir()
    (wheels / "numpy-2.4.whl").touch()
    for folder, name in ((site, "libnvrtc.so"), (site, "libnvvm.so"), (own, "libnvvm.so")):
        (folder / "nvidia/cu13/lib").mkdir(parents=True, exist_ok=True)
        (folder / "nvidia/cu13/lib" / name).touch()
    (toolkit / "bin").mkdir()
    (toolkit / "bin" / "nvcc").touch()
    (toolkit / "bin" / "nvcc").chmod(0o755)
    fake.write_text(
        f'#!/bin/sh\necho "$*" >>{log}\necho "$CUDA_HOME" >{tmp_path}/home\n'
        f'if [ "$1" = -c ]; then case $0 in *bin*) echo {own};; *) echo {site};; esac; fi\n'
        'if [ "$2" = venv ]; then mkdir -p "$5/bin"; cp "$0" "$5/bin/python"; fi\n'
    )
    fake.chmod(0o755)
    environment = {
        **os.environ, "PYTHON": str(fake), "WHEELS": str(wheels), "VENV": str(tmp_path / "venv"),
        "SYSTEM": "1", "PATH": f"{toolkit}/bin:{os.environ['PATH']}", "CUDA_HOME": "",
        "CUDA_PATH": "",
    }  # fmt: skip
    for _ in range(2):
        done = subprocess.run(
            ["bash", str(ROOT / "benchmarks" / "gpu_session.sh"), "--only", "info"],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    # NVIDIA's libraries are not looked for beyond an environment's own folder
    libraries = own / "nvidia/cu13/lib"
    assert (libraries / "libnvrtc.so").resolve() == site / "nvidia/cu13/lib/libnvrtc.so"
    assert not (libraries / "libnvvm.so").is_symlink()  # as a wheel brought it
    assert (tmp_path / "home").read_text().strip() == str(toolkit)
    assert (own / "system.pth").read_text() == f"import site; site.addsitedir('{site}')\n"
    lines = log.read_text().splitlines()
    installs = [line for line in lines if " install " in line]
    assert [line.split()[-1] for line in installs] == [str(wheels / "numpy-2.4.whl"), "."]
    assert all("--no-index --no-deps" in line for line in installs)
    assert lines[-1] == "-m benchmarks.gpu_session --only info"

"""All that is to be shown on a GPU, in under ten minutes; `gpu_session.sh` installs and starts it.

    python -m benchmarks.gpu_session [--only benchmark] [--list] [--small]

What would make the rest worthless comes first: kernels, recurrent nets beside the CPU, tests, the
sanitizer; then PyTorch, with `torch.compile` last, which takes longest and matters least. Every
part has its own limit and what is left of `TOTAL`; one that fails does not keep the others from
running. `benchmarks/results/gpu-session.json` and `.txt` are written anew after every part, and
`gpu.json` after every row of the benchmark, so that a session which is cut off has left all it had.

`--small` tries the program itself out on the simulator and the CPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
#: seconds for all parts together, and for what came before (`SPENT`, which the script sets)
TOTAL = 585
#: processes that run tests side by side, at most
SHARES = 12
#: kernels whose memory accesses have to be looked at: asynchronous copies to shared memory, blocks
#: that wait for each other, and threads that share memory of their block
SHARING = (
    "matmul half recurrent recurrent_layout attention strided ctc ctc_decode convolution "
    "convolution_tile beam transducer wavenet norm softmax crf transducer_search rows descent "
    "elementwise"
)
WATCHED = {
    tool: [f"tests/kernels/cuda/test_{name}.py" for name in names.split()]
    for tool, names in {"memcheck": f"{SHARING} update", "racecheck": SHARING}.items()
}
#: of those, the tests with few launches: a sanitizer makes each some hundred times slower
QUICK = "not central_differences and not round_tf32 and not neighbours"
#: every test that trains with device="auto" trains on the GPU then
TRAININGS = [
    "tests/nn/test_recurrent.py", "tests/optim", "tests/train/test_trainer.py",
    "tests/train/test_checkpoint.py", "tests/train/test_guard.py",
]  # fmt: skip


@dataclass
class Part:
    """One part of the session.

    Attributes:
        name: what the table calls it.
        seconds: how long it may take.
        command: what is run; several are run side by side.
        environment: variables that are set for it.
    """

    name: str
    seconds: int
    commands: list[list[str]]
    environment: dict[str, str] = field(default_factory=dict)


def pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def shared(name: str, seconds: int, count: int, *arguments: str, **environment: str) -> Part:
    """Tests, spread over several processes."""
    command = pytest("-p", "benchmarks.share", *arguments)
    commands = [["env", f"SHARE={k}/{count}", *command] for k in range(count)]
    return Part(name, seconds, commands, environment)


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def example(name: str, *arguments: str) -> list[str]:
    return [sys.executable, f"examples/{name}.py", *arguments]


def sanitizer(tool: str, *arguments: str) -> list[str]:
    found = sanitizer_path() or "compute-sanitizer"
    options = ["--tool", tool, "--error-exitcode", "9", "--launch-timeout", "0"]
    return [found, *options, *pytest("-x", *WATCHED[tool], *arguments)]


def sanitizer_path() -> str | None:
    """compute-sanitizer of the toolkit, or of its package."""
    if found := shutil.which("compute-sanitizer"):
        return found
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = [f for folder in folders for f in Path(folder).rglob("compute-sanitizer")]
    for found in sorted((f for f in files if f.is_file()), key=lambda f: -f.stat().st_size):
        found.chmod(found.stat().st_mode | 0o111)  # the program itself, not the script beside it
        return str(found)
    return None


def parts(results: Path = RESULTS) -> list[Part]:
    """The session, in order; figures go to the folder `results`."""
    count = max(1, min(SHARES, (os.cpu_count() or 1) - 2))
    exact = {"FASTNN_CUDA_GUARD": "exact"}
    folder = ("--results", str(results))
    gpu = module("benchmarks.gpu", "--turns", "8", "--budget", "0.2", *folder)
    return [
        Part("machine", 10, [["nvidia-smi"]]),
        Part("info", 15, [module("fastnn", "info")]),
        Part("compile", 50, [module("fastnn", "warmup", "--device", "cuda")]),
        shared("kernels", 50, count, "tests/kernels/cuda"),
        Part("recurrent", 30, [module("benchmarks.gpu_smoke")]),
        shared("runtime", 30, count, "tests/cuda"),
        shared("guards", 25, count, "tests/cuda/test_training.py", "tests/cuda/test_recurrent.py",
               FASTNN_CUDA_GUARD="1"),
        shared("trainings", 45, count, *TRAININGS, FASTNN_DEVICE="cuda"),
        Part("memcheck", 45, [sanitizer("memcheck", "-k", QUICK)], exact),
        Part("racecheck", 35, [sanitizer("racecheck", "-k", QUICK)], exact),
        Part("examples", 35, [
            example("gpu_digits_mlp", "--device", "cuda", "--epochs", "10", "--check"),
            example("gpu_char_lm", "--device", "cuda", "--epochs", "1", "--characters", "40000",
                    "--check"),
            example("gpu_spoken_digits", "--device", "cuda", "--epochs", "2", "--recordings",
                    "400", "--check"),
        ]),
        Part("feeding", 15, [module("benchmarks.gpu_feeding", *folder)]),
        Part("benchmark", 120, [[*gpu, "--ways", "quick"]]),
        Part("torch.compile", 80, [[*gpu, "--ways", "compiled"]]),
    ]  # fmt: skip


def small_parts(results: Path = RESULTS) -> list[Part]:
    """The same parts, each a few seconds long, without a GPU. Their limit is for what hangs: a busy
    machine takes many times as long."""
    folder = ("--results", str(results))
    simulator = {"NUMBA_ENABLE_CUDASIM": "1"}
    gpu = module("benchmarks.gpu", "--device", "cpu", "--small", "--turns", "1", *folder)
    gpu += ["--budget", "0.001"]
    tiny = ("--steps", "3", "--hidden", "3", "--batch", "2", "--length", "3", "--only", "GRU")
    fake = [sys.executable, "-c", "print('sanitizer')"]
    found = {
        "machine": [[sys.executable, "-c", "print('a machine')"]],
        "info": [module("fastnn", "info")],
        "compile": [module("fastnn", "warmup", "--help")],
        "kernels": shared("", 0, 2, "tests/kernels/cuda/test_stop.py").commands,
        "recurrent": [module("benchmarks.gpu_smoke", *tiny, "--device", "cpu")],
        "runtime": shared("", 0, 2, "tests/cuda/test_guards.py").commands,
        "guards": shared("", 0, 2, "tests/cuda/test_guards.py").commands,
        "trainings": shared("", 0, 2, "tests/train/test_history.py").commands,
        "memcheck": [[*fake, *sanitizer("memcheck", "-k", QUICK)[1:]]],
        "racecheck": [[*fake, *sanitizer("racecheck", "-k", QUICK)[1:]]],
        "examples": [example("gpu_digits_mlp", "--device", "cpu", "--epochs", "1")],
        "feeding": [module("benchmarks.gpu_feeding", "--device", "cpu", "--steps", "5", *folder)],
        "benchmark": [[*gpu, "--ways", "quick", "--only", "GRU"]],
        "torch.compile": [[*gpu, "--ways", "compiled", "--only", "MLP"]],
    }
    simulated = ("kernels", "runtime", "guards")
    return [
        Part(p.name, 600, found[p.name], simulator if p.name in simulated else {}) for p in parts()
    ]


class Session:
    """Runs parts and writes down how each went."""

    def __init__(self, folder: Path, total: float = TOTAL):
        self.folder, self.start, self.total = folder, time.monotonic(), total
        self.rows: list[dict[str, Any]] = []
        self.text: list[str] = []

    def run(self, part: Part) -> None:
        start = time.monotonic()
        limit = min(part.seconds, self.total - (start - self.start))
        self.say(f"== {part.name}: {' '.join(part.commands[0])} (at most {limit:.0f} s)")
        if limit <= 1:
            self.note(part, "no time was left", 0.0, "")
            return
        outputs, statuses = side_by_side(part, limit)
        status = next((s for s in statuses if s), 0)
        how = {0: "passed", 124: "took too long"}.get(status, f"exit {status}")
        for output in outputs:
            self.say("\n".join(output.splitlines()[-40:]))
        self.note(part, how, time.monotonic() - start, "\n".join(outputs))

    def note(self, part: Part, how: str, seconds: float, output: str) -> None:
        passed = sum(int(n) for n in re.findall(r"(\d+) passed", output))
        row = {"name": part.name, "result": how, "seconds": round(seconds, 1)}
        if passed:
            row["tests"] = passed
        self.rows.append(row)
        self.say(f"== {part.name}: {how} after {seconds:.1f} s")
        self.write()

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.text.append(text)

    def write(self) -> None:
        """What there is by now, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seconds = round(time.monotonic() - self.start, 1)
        content = {"seconds": seconds, "parts": self.rows}
        for name, text in (
            ("gpu-session.json", json.dumps(content, indent=1)),
            ("gpu-session.txt", "\n".join(self.text) + "\n"),
        ):
            new = self.folder / f"{name}.new"
            new.write_text(text)
            new.replace(self.folder / name)
        if out := os.environ.get("OUT"):
            for path in self.folder.glob("gpu*"):
                shutil.copy(path, out)


def side_by_side(part: Part, limit: float) -> tuple[list[str], list[int]]:
    """Run a part's commands at the same time; what they said, and how they ended (124: too late).

    First all are asked to stop, as by Ctrl-C; five seconds later those that run on are ended.
    """
    environment = {**os.environ, **part.environment, "PYTHONUNBUFFERED": "1"}
    running = []
    for command in part.commands:
        output: Any = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it has been read
        try:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n")
            running.append((None, output))
            continue
        running.append((process, output))
    processes = [process for process, _ in running if process is not None]
    late: set[int] = set()
    for wait, call in ((limit, signal.SIGINT), (5.0, signal.SIGKILL)):
        end = time.monotonic() + wait
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.0))
        for process in processes:
            if process.poll() is None:
                late.add(process.pid)
                os.killpg(process.pid, call)
    outputs, statuses = [], []
    for process, output in running:
        status = 127
        if process is not None:
            code = process.wait()
            status = 124 if process.pid in late else code
        output.seek(0)
        outputs.append(output.read())
        output.close()
        statuses.append(status)
    return outputs, statuses


def chosen_of(found: list[Part], only: str) -> list[Part]:
    """The part of this name, or those that have it in theirs ("compile" is in two)."""
    return [p for p in found if p.name == only] or [p for p in found if only in p.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part, or those with this in their names")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    parser.add_argument("--small", action="store_true", help="try the program out, without a GPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    found = (small_parts if options.small else parts)(options.results.resolve())
    chosen = chosen_of(found, options.only)
    if options.list:
        for part in chosen:
            print(f"{part.name} ({part.seconds} s, {len(part.commands)} processes): "
                  f"{' '.join(part.commands[0])}")  # fmt: skip
        return
    session = Session(options.results, TOTAL - float(os.environ.get("SPENT", "0")))
    for part in chosen:
        session.run(part)
    failed = [row["name"] for row in session.rows if row["result"] != "passed"]
    session.say(f"== {time.monotonic() - session.start:.0f} s; failed: {', '.join(failed) or '-'}")
    session.write()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""The session on a GPU, rehearsed on stand-ins that compute nothing: no row is lost to a slip."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import gpu_models, gpu_smoke
from tests.stub.harness import Ran, run

ROOT = Path(__file__).parents[2]
BEGIN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})

def main(module, *arguments):
    sys.argv = [module.__name__, *arguments]
    try:
        module.main()
    except SystemExit as ended:
        print("ended:", ended.code)
"""
#: each row of the benchmark, as a session asks for it, but for single kernels on large arrays
ROWS = """
import json, traceback
from pathlib import Path
from benchmarks import gpu, gpu_models, gpu_timing
from tests.stub import torch_on_meta

def once(self, steps):  # what a step is asked for is seen at its first time
    if not hasattr(self, "done"):
        self.done = self.step()

def noted(add):
    def write(self, *found):
        add(self, *found)
        content = json.loads((Path(FOLDER) / f"{self.name}.json").read_text())
        print("written:", len(content["rows"]) + len(content["failed"]))
    return write

def failed(self, name, error):
    traceback.print_exception(error)

gpu_timing.Side.run = once
gpu.Results.add, gpu.Results.fail = noted(gpu.Results.add), noted(failed)
gpu.SIZES |= {"sgemm": (1024,), "Adam": (10_000,), "softmax": (32, 1000), "CTC": (29,)}
recurrent = gpu_models.recurrent

def shorter(kind, hidden, batch, steps, *more, **options):  # PyTorch's peer goes step by step
    return recurrent(kind, hidden, batch, 4 if "peepholes" in options else steps, *more, **options)

gpu_models.recurrent = shorter
modes = []
with torch_on_meta.rehearsed(modes):
    for ways in WAYS:
        main(gpu, "--turns", "1", "--budget", "1e-9", "--results", FOLDER, "--ways", ways, *MORE)
print("compiled:", sorted(set(modes)))
"""


def rows(folder: Path, *ways: str, **more: str) -> Ran:
    given = [text for name, value in more.items() for text in (f"--{name}", value)]
    settings = f"FOLDER, WAYS, MORE = {str(folder)!r}, {ways!r}, {given!r}\n"
    found = run(BEGIN + settings + ROWS, MEMORY=20 << 30)
    assert found.status == 0, found.output
    assert found.mistakes == []
    assert "Traceback" not in found.output, found.output
    return found


@pytest.mark.peers
def test_every_row_of_the_benchmark_is_planned_launched_and_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    ran = rows(tmp_path, "quick", "compiled")
    content = json.loads((tmp_path / "gpu.json").read_text())
    names = [row["name"] for row in content["rows"]]
    assert content["failed"] == []
    wanted = [case.name.replace("T128", "T4") for case in gpu_models.cases()]
    assert names[: len(wanted)] == wanted
    kinds = ["sgemm", "Adam", "CTC", "softmax", "softmax"]
    assert [name.split()[0] for name in names[len(wanted) :]] == kinds
    for case, row in zip(gpu_models.cases(), content["rows"], strict=False):
        assert set(row["ratios"]) == set(case.ways), row["failed"]
    written = [int(n) for n in re.findall(r"^written: (\d+)", ran.output, re.MULTILINE)]
    assert written[: len(names)] == list(range(1, len(names) + 1))
    assert "ended: 0" in ran.output
    assert "compiled: ['default', 'reduce-overhead']" in ran.output


@pytest.mark.peers
@pytest.mark.parametrize("precision", ["medium", "bf16", "fp16"])
def test_rows_at_a_lower_precision(precision: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rows(tmp_path, "quick", precision=precision, only="MLP 784-128")
    (row,) = json.loads((tmp_path / f"gpu-{precision}.json").read_text())["rows"]
    assert set(row["ratios"]) == {"eager", "graph"}
    assert row["failed"] == {}


def test_every_recurrent_net_is_tried_beside_the_cpu() -> None:
    """Losses are zero where no kernel runs, which is said of each."""
    ran = run(
        BEGIN
        + """
from benchmarks import gpu_smoke
main(gpu_smoke, "--steps", "3", "--batch", "3", "--length", "4")
"""
    )
    assert ran.mistakes == []
    lines = [line for line in ran.output.splitlines() if re.search(r" H\d+: ", line)]
    assert len(lines) == 2 * len(gpu_smoke.KINDS), ran.output
    assert all("WRONG" in line and "FAILED" not in line for line in lines), ran.output
    assert "ended: 1" in ran.output


def test_examples_and_what_a_step_costs_the_host(tmp_path: Path) -> None:
    """As the session asks for them, with less to do."""
    ran = run(
        BEGIN
        + f"""
sys.path.insert(0, {str(ROOT / "examples")!r})
import gpu_char_lm, gpu_digits_mlp, gpu_spoken_digits
from benchmarks import gpu_feeding
for module, given in (
    (gpu_digits_mlp, ["--epochs", "1"]),
    (gpu_char_lm, ["--epochs", "1", "--characters", "4000"]),
    (gpu_spoken_digits, ["--epochs", "1", "--recordings", "40"]),
):
    try:
        module.main(["--device", "cuda", "--check", *given])
    except AssertionError as error:
        print("differs:", module.__name__, "Mismatched elements" in str(error))
main(gpu_feeding, "--steps", "20", "--results", {str(tmp_path)!r})
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    for name in ("digits_mlp", "char_lm", "spoken_digits"):
        assert f"differs: gpu_{name} True" in ran.output
    assert len(json.loads((tmp_path / "gpu-feeding.json").read_text())["rows"]) == 2

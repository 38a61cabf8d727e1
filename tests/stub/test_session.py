"""The session on a GPU, rehearsed on stand-ins that compute nothing: no row is lost to a slip."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from benchmarks import gpu_models, gpu_smoke
from tests.stub.harness import run

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

fail = gpu.Results.fail

def failed(self, name, error):
    traceback.print_exception(error)
    fail(self, name, error)

gpu_timing.Side.run = once
gpu.Results.add, gpu.Results.fail = noted(gpu.Results.add), noted(failed)
gpu.SIZES |= {"sgemm": (1024,), "Adam": (10_000,), "softmax": (32, 1000), "CTC": (29,)}
recurrent = gpu_models.recurrent

def shorter(kind, hidden, batch, steps, *more, **options):  # PyTorch's peer goes step by step
    return recurrent(kind, hidden, batch, 4 if "peepholes" in options else steps, *more, **options)

gpu_models.recurrent = shorter
modes = []
given = ("--turns", "1", "--budget", "1e-9", "--results", FOLDER)
with torch_on_meta.rehearsed(modes):
    main(gpu, *given, "--ways", "quick")
    for only in ("MLP", "softmax"):
        main(gpu, *given, "--ways", "compiled", "--only", only)
    for precision in ("medium", "bf16", "fp16"):
        main(gpu, *given, "--ways", "quick", "--only", "MLP 784-128", "--precision", precision)
print("compiled:", sorted(set(modes)))
"""


@pytest.mark.peers
def test_every_row_of_the_benchmark_is_planned_launched_and_written(tmp_path: Path) -> None:
    """In the quick ways; compiled ones, and lower precisions, of the first rows."""
    pytest.importorskip("torch")
    ran = run(BEGIN + f"FOLDER = {str(tmp_path)!r}\n" + ROWS, MEMORY=20 << 30)
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert "Traceback" not in ran.output, ran.output

    def rows(name: str) -> dict[str, dict[str, float]]:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["failed"] == []
        assert not any(row.get("failed") for row in content["rows"])
        return {re.sub("T4$", "T128", row["name"]): row["ratios"] for row in content["rows"]}

    found, cases = rows("gpu"), gpu_models.cases()
    assert list(found)[: len(cases)] == [case.name for case in cases]
    kinds = [name.split()[0] for name in list(found)[len(cases) :]]
    assert kinds == ["sgemm", "Adam", *["convolution"] * 6, "CTC", "softmax", "softmax"]
    for case in cases:
        left_out = set() if case.name.startswith("MLP") else {"reduce-overhead"}
        assert set(found[case.name]) == set(case.ways) - left_out
    assert set(found["softmax + cross-entropy, 4096 rows, V=32"]) == {"eager", "compile"}
    for precision in ("medium", "bf16", "fp16"):
        assert [set(ratios) for ratios in rows(f"gpu-{precision}").values()] == [{"eager", "graph"}]
    written = [int(n) for n in re.findall(r"^written: (\d+)", ran.output, re.MULTILINE)]
    assert written[: len(found)] == list(range(1, len(found) + 1))
    assert ran.output.count("ended: 0") == 6
    assert "compiled: ['default', 'reduce-overhead']" in ran.output


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
    """As the session asks for them, with less to do, and not beside the CPU."""
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA is not set")
    ran = run(
        BEGIN
        + f"""
sys.path.insert(0, {str(ROOT / "examples")!r})
import gpu_char_lm, gpu_digits_mlp, gpu_spoken_digits
from benchmarks import gpu_feeding
for module, given in (
    (gpu_digits_mlp, ["--epochs", "1"]),
    (gpu_char_lm, ["--epochs", "1", "--characters", "12000"]),
    (gpu_spoken_digits, ["--epochs", "1", "--recordings", "40"]),
):
    print("losses:", len(module.main(["--device", "cuda", *given])))
from fastnn.cli.info import facts
print({{name: text for name, text in facts()}}["tensor cores"])
main(gpu_feeding, "--steps", "20", "--results", {str(tmp_path)!r})
"""
    )
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    assert 'use them only at "bf16" and "fp16"' in ran.output
    assert len(re.findall(r"^losses: [1-9]", ran.output, re.MULTILINE)) == 3
    assert len(json.loads((tmp_path / "gpu-feeding.json").read_text())["rows"]) == 2

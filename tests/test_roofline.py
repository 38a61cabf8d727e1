"""The benchmarks of single kernels, functions and precisions count and show what they should."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np

from benchmarks import harness, ports, precision_curves, roofline, roofline_cases, tables, work
from fastnn import nn, optim


def test_kernels_beside_their_limits() -> None:
    """Work is counted as the kernels do it: a sum over ones is the number of its terms."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, 1, bias=False), nn.Flatten(), nn.Linear(3 * 3 * 4, 5, bias=False)
    )
    model.load_state_dict({name: np.ones_like(v) for name, v in model.state_dict().items()})
    ones = np.ones((2, 2, 5, 7), np.float32)
    layers = nn.Sequential(model[0]).predict(ones), model.predict(ones)
    step = roofline_cases.compiled(model, None, optim.Adam())
    case = step, ones, np.array([0, 1]), ("forward", "adam_update")
    found = {call.kernel: work.work_of(call) for call, _ in roofline.calls(case)}
    assert found["convolution_forward"].macs == layers[0].sum()
    assert found["linear_forward"].macs == 2 * 36 * 5
    assert found["adam_update"].functions["root and quotient"] == 36 * 5
    assert found["adam_update"].bytes >= 28 * 36 * 5
    (row,) = roofline.measure(
        turns=2, rounds=1, found={"small": lambda: (*case[:3], ("convolution_for",))}
    )
    assert 0 < row["share_of_limit"] < 2
    assert "convolution_forward" in roofline.table({"rows": [row]})


def test_work_of_time_loops() -> None:
    call = next(
        c
        for c, _ in roofline.calls(roofline_cases.recurrent("LSTM", 8, 2, 5)())
        if "for" in c.kernel
    )
    counted = work.work_of(call)
    assert counted is not None
    assert counted.macs == 5 * 2 * (40 + 8) * 32
    assert counted.functions == {"sigmoid": 240, "tanh": 160}
    weights = 40 * 32 + 8 * 32  # packed to whole tiles
    assert counted.bytes >= 4 * (5 * 2 * (40 + 8 + 40) + weights + 2 * 32)


def test_calls_keep_what_they_read() -> None:
    """A call that is made later reads its own inputs: of the net's memory others may have it."""
    case = roofline_cases.tagging(2, 5, 3)()
    target = weakref.ref(case[2])
    pairs = list(roofline.calls(case))
    counted = {call.kernel: work.work_of(call) for call, _ in pairs}
    assert counted["crf_forward"].macs == 3 * 2 * 5 * 3 * 3
    assert all(found is not None for found in counted.values())
    del case
    gc.collect()
    assert target() is not None
    for _, run in pairs:
        run(1)


def test_functions_by_ports() -> None:
    loop = """
    jmp .L1
.L1:
    addq $1, %rax
.L2:
    vaddps %ymm0, %ymm1, %ymm1
    vmovups %ymm1, (%rdx)
    jne .L2
    jb .L1
"""
    assert [line.split()[0] for line in ports.loop_of(loop)] == ["vaddps", "vmovups", "jne"]
    row = {"row": "exp", "picoseconds": 100.0, "cycles": 2.5}
    assert "| exp | 100 | 2.5 | - | - | - |" in ports.table([row])
    assert ports.seconds("quotient", turns=1) > 0


def test_curves_at_each_precision(tmp_path: Path) -> None:
    """Of a net whose products are large enough for a tile unit or AVX-512-BF16."""
    x, y = np.random.default_rng(0).standard_normal((128, 64)).astype("f4"), np.arange(128) % 3
    net = lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 3))  # noqa: E731
    task = precision_curves.Task(net, 0.01, 64, (x, y), (x, y))
    rows = precision_curves.measure({"small": lambda: task}, 20, ("highest", "bf16"))
    assert [row["row"] for row in rows] == ["highest", "bf16", "highest, changed"]
    assert rows[0]["losses"] != rows[1]["losses"]
    assert "small: right" in precision_curves.table(rows)
    precision_curves.picture(rows, str(tmp_path / "curves.png"))


def test_every_kept_result_has_its_table() -> None:
    page = tables.summary()
    assert "## How cost grows" in page
    for path in harness.RESULTS.glob("*.json"):
        assert json.loads(path.read_text())["command"] in page, path

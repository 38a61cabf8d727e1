"""Plans the models, in a process of its own, for a machine that is always the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"
ROOT = Path(__file__).resolve().parents[2]
DEVICES = ("cpu", "cuda")


def plan(names: list[str] | None = None) -> dict[str, str]:
    """The programs' texts, by case and device ("mlp.cpu"); of all cases by default."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.programs", *(names or [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"planning failed:\n{done.stderr[-10_000:]}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def kept() -> dict[str, str]:
    """The texts in the folder."""
    return {p.stem: p.read_text(encoding="utf-8") for p in sorted(FOLDER.glob("*.txt"))}


def write(texts: dict[str, str], whole: bool) -> None:
    """Keep texts; `whole`: they are all there are."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts.items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.txt") if whole else ():
        if path.stem not in texts:
            path.unlink()


def _fix_machine() -> None:
    from fastnn.kernels.cpu import target

    golden = target.Target("golden", "", "AVX2", 256, True, 16)
    target.host = lambda: golden


def _plan_here(names: list[str]) -> dict[str, str]:
    _fix_machine()
    from fastnn.testing.null import null_device
    from tests.golden import text
    from tests.golden.models import CASES, LIMITS

    found = {}
    for name in names or CASES:
        for device in DEVICES:
            with null_device(device, **LIMITS.get(name, {})) as null:
                CASES[name]()
            found[f"{name}.{device}"] = "\n".join(text.text(p) for p in null.programs)
    return found


if __name__ == "__main__":
    json.dump(_plan_here(sys.argv[1:]), sys.stdout)

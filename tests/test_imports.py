"""Imports go downward, in no circle, and devices have no name above the planner.

All imports count, those inside functions, too; imports for type checkers alone must go downward as
well, but may close a circle. What breaks a rule today is listed here, and a list can only become
shorter: a line that no longer holds fails, too.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fastnn
import fastnn.kernels
from fastnn.kernels.declare import Kernel

#: from the bottom to the top; a folder imports from those before it. Names in one line stand side
#: by side and know nothing of each other.
ORDER: list[str] = [
    "errors _version public cached weak",
    "files interrupts spellings switches",
    "kernels",
    "graph optim",
    "ops",
    "plan",
    "runtime",
    "engine",
    "nn",
    "train data",
    "pretrain generative diagnostics",
    "plot",
    "tasks testing autodiff callbacks metrics cuda parallel",
    "fastnn cli __main__",
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}
#: what is built from parameters upward knows nothing of how they are updated
WITHOUT_OPTIM = {"ops", "plan", "runtime", "engine", "nn", "data"}

#: arrows that go upward today: "importing module -> imported module"
UPWARD: set[str] = set()
#: the same, for type checkers alone
UPWARD_TYPES: set[str] = set()
#: modules in circles today
CIRCLES: set[str] = set()

#: folders that may name devices
WITH_DEVICES = {"kernels", "plan", "runtime", "testing", "cli", "cuda", "fastnn"}
#: how often a file above `plan` names a device today: a string, an attribute, an argument
DEVICES: dict[str, int] = {
    "fastnn.engine.numbers": 1,  # PyTorch's method
    "fastnn.ops.user": 1,  # where users give their kernels for it
}


@dataclass(frozen=True)
class Import:
    source: str
    target: str
    types: bool  # for type checkers alone

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def files() -> dict[str, Path]:
    """By name, the files of all modules."""
    found = {}
    for package in (fastnn, fastnn.kernels):
        folder = Path(str(package.__file__)).parent
        for path in folder.rglob("*.py"):
            parts = [package.__name__, *path.relative_to(folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


FILES = files()


@functools.cache
def tree(name: str) -> ast.Module:
    """A module's syntax tree, made when a test asks for it: all processes collect tests, one of
    them runs these."""
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[Import]:
    """All imports of fastnn's own modules in a module."""
    for node, types in _statements(tree(name), False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fastnn":
                    yield Import(name, alias.name, types)
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, node)
            if base.split(".")[0] == "fastnn":
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield Import(name, whole if whole in FILES else base, types)


def _statements(node: ast.AST, types: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, types
        guarded = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from _statements(child, types or guarded)


def _base(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = name.split(".") if FILES[name].name == "__init__.py" else name.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@functools.cache
def all_imports() -> list[Import]:
    """Those of all modules."""
    found = {i for name in FILES for i in imports(name) if i.source != i.target}
    return sorted(found, key=str)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def goes_upward(found: Import) -> bool:
    source, target = layer(found.source), layer(found.target)
    if source == target:
        return False
    if source in WITHOUT_OPTIM and target == "optim":
        return True
    if {source, target} <= {"fastnn", "cli", "__main__"}:
        return False
    return LEVEL[target] >= LEVEL[source]


def test_every_module_has_a_place() -> None:
    assert {layer(name) for name in FILES} <= set(LEVEL)
    assert len(all_imports()) > 300


def test_imports_go_downward() -> None:
    found = {str(i) for i in all_imports() if goes_upward(i) and not i.types}
    assert sorted(found - UPWARD) == [], "move what is needed down, or hand it in from above"
    assert sorted(UPWARD - found) == [], "these are mended: take them off the list"


def test_imports_for_types_go_downward() -> None:
    found = {str(i) for i in all_imports() if goes_upward(i) and i.types}
    found -= {str(i) for i in all_imports() if not i.types}
    assert sorted(found - UPWARD_TYPES) == [], (
        "say what is needed as a protocol of the lower module"
    )
    assert sorted(UPWARD_TYPES - found) == [], "these are mended: take them off the list"


def circles() -> list[set[str]]:
    """Groups of modules that import each other, be it through others."""
    below: dict[str, set[str]] = {name: set() for name in FILES}
    for found in all_imports():
        if not found.types:
            below[found.source].add(found.target)
    reached = {name: _reached(name, below) for name in FILES}
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in FILES}
    return [set(group) for group in groups if group]


def _reached(name: str, below: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = below[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_no_circles() -> None:
    found = set().union(*circles())
    assert sorted(found - CIRCLES) == [], circles()
    assert sorted(CIRCLES - found) == [], "these are in no circle any more: take them off the list"


def devices(name: str) -> int:
    """How often a module names a device in its code."""
    return sum(_device(node) for node in ast.walk(tree(name)))


def _device(node: ast.AST) -> bool:
    """Whether this is "cuda", "cuda:0", `x.cuda`, or an argument of that name."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.partition(":")[0] in ("cpu", "cuda") and " " not in node.value
    word = getattr(node, {ast.Attribute: "attr", ast.arg: "arg"}.get(type(node), ""), None)
    return word in ("cpu", "cuda")


def test_devices_have_no_name_above_the_planner() -> None:
    found = {
        name: count
        for name in FILES
        if layer(name) not in WITH_DEVICES and (count := devices(name))
    }
    more = {name: count for name, count in found.items() if count > DEVICES.get(name, 0)}
    assert more == {}, "choose by the device in the planner, or by what the runtime says of itself"
    fewer = {name: count for name, count in DEVICES.items() if count > found.get(name, 0)}
    assert fewer == {}, "these have become fewer: shorten the list"


#: files above the planner that take from a device's modules, and why
TAKE_FROM_DEVICES = {
    "fastnn.engine.arrays": "users' arrays may lie on a GPU",
    "fastnn.nn.protocols": "parameters on a GPU are shown to CuPy, PyTorch and the like",
}


def test_nothing_above_the_planner_takes_from_a_devices_modules() -> None:
    found = {
        i.source for i in all_imports() if layer(i.source) not in WITH_DEVICES
        if {p.strip("_").partition("_")[0] for p in i.target.split(".")} & {"cpu", "cuda"}
    }  # fmt: skip
    assert found == set(TAKE_FROM_DEVICES), "take it from a module that serves all devices"


def device_of(module: str) -> str:
    """Whose kernels a module of `kernels` has, or "" for what both devices share."""
    parts = module.removeprefix("fastnn.kernels.").split(".")
    named = [part.partition("_")[0] for part in parts if module.startswith("fastnn.kernels.")]
    return next((part for part in named if part in ("cpu", "cuda")), "")


def taken(name: str) -> set[str]:
    """What a module takes from modules of the other device: "alias.name", or "import name"."""
    other = {"cpu": "cuda", "cuda": "cpu"}.get(device_of(name), "")
    found, aliases = set(), {}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom):
            base = _base(name, node)
            for alias in node.names:
                if other and device_of(f"{base}.{alias.name}") == other:
                    if f"{base}.{alias.name}" in FILES:
                        aliases[alias.asname or alias.name] = f"{base}.{alias.name}"
                    else:
                        found.add(f"import {alias.name} from {base}")
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (
            node.value.id in aliases
        ):  # fmt: skip
            found.add(f"{aliases[node.value.id]}.{node.attr}")
    return found


def is_signature(what: str) -> bool:
    """Whether this is a kernel, which one of the other device is like, or what declares one."""
    module, _, name = what.rpartition(".")
    found = getattr(importlib.import_module(module), name) if module in FILES else None
    return isinstance(found, Kernel) or (callable(found) and name == "make_step")


def test_a_device_takes_nothing_from_the_other_but_signatures() -> None:
    """A CUDA kernel is `like` the CPU's, where its signature is written; formulas and sizes are in
    files that name no device. The CPU takes nothing of CUDA's."""
    found = {name: what for name in FILES if (what := taken(name))}
    assert len(found) > 30
    assert [name for name in found if device_of(name) == "cpu"] == []
    wrong = sorted(f"{name}: {w}" for name, what in found.items() for w in what
                   if not is_signature(w))  # fmt: skip
    assert wrong == [], "move what both devices need to a file of the topic without a device"


#: what CUDA's files reach by way of shared ones and leave aside, and why
LEFT_ASIDE = {"fastnn.kernels.descent.vectors": "CUDA's functions take its place (`Replaced`)"}


def test_what_cuda_shares_imports_nothing_of_the_cpu() -> None:
    shared: dict[str, set[str]] = {}
    for found in all_imports():
        if found.target.startswith("fastnn.kernels.") and not device_of(found.target):
            shared.setdefault(found.source, set()).add(found.target)
    reached, waiting = set(), [name for name in FILES if device_of(name) == "cuda"]
    while waiting:
        new = shared.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    wrong = {i.source for i in all_imports() if i.source in reached and device_of(i.target)}
    assert len(reached) > 20
    assert wrong == set(LEFT_ASIDE), "what both devices share names neither"


def test_a_file_is_one_thing() -> None:
    """Of 400 lines at most."""
    top = Path(__file__).resolve().parents[1]
    paths = [p for f in ("fastnn", "kernels", "tests", "benchmarks", "examples")
             for p in (top / f).rglob("*.py")]  # fmt: skip
    assert len(paths) > 500
    long = {str(p.relative_to(top)): n for p in paths
            if (n := p.read_text(encoding="utf-8").count("\n")) > 400}  # fmt: skip
    assert long == {}, "split what is more than one thing"


def test_helpers_of_kernels_take_few_operands() -> None:
    """13 at most: what belongs together is a named tuple, which costs nothing once it is inlined.
    (Functions that stand for an instruction, such as `tile`, are no helpers.)"""
    counts = {
        f"{name}.{node.name}": len(node.args.posonlyargs + node.args.args)
        for name in FILES if layer(name) == "kernels"
        for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef)
        if any(isinstance(d, ast.Name) and d.id == "helper" for d in node.decorator_list)
    }  # fmt: skip
    assert len(counts) > 500
    assert {name: count for name, count in counts.items() if count > 13} == {}

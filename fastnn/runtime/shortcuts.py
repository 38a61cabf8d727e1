"""Shorter ways through Numba's compiler, to the same code.

What Numba does in Python is 40 % of the time of compiling for the CPU and most of it for CUDA
(docs/speed.md). Some of its functions do far more than their results need, and are replaced here
before something is compiled:

- static single assignment rewrites every statement once for each variable that is assigned twice;
  here only those of blocks that name it;
- each step of type inference saves and restores Python's filters of warnings; here all of them do
  it together;
- the type of a call is worked out each time that the same function meets the same types; here once;
- the variables of a statement are looked for, dozens of times, by asking each part what it is; here
  each type of part is asked once. The compiler's settings, which are written out before each of its
  passes, are read in one go.

Code does not depend on any of it, so this module is in no key.
"""

from __future__ import annotations

import importlib
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fastnn.runtime import _cuda

#: what `single_assignments` takes from Numba's module
SSA = (
    "_run_ssa", "_iterated_domfronts", "_find_defs_violators", "_compute_phi_locations",
    "_CacheListVars", "_FreshVarHandler", "_FixSSAVars", "compute_cfg_from_blocks",
)  # fmt: skip
_installed: set[str] = set()
#: the stacks of compilers' settings
_stacks: list[Any] = []
#: the warnings of the type inferences that are going on
_heard: list[list[Any]] = []


def install(package: str) -> None:
    """Replace the functions of "numba" or of "numba.cuda", once in a process.

    Where the package can't be used nothing happens: whoever compiles finds out and says why.
    """
    if package in _installed or (package == "numba.cuda" and _cuda.unfit()):
        return
    try:
        names = ("ir", "ssa", "typeinfer", "targetconfig")
        ir, ssa, typeinfer, config = (importlib.import_module(f"{package}.core.{n}") for n in names)
        functions = importlib.import_module("numba.core.types.functions")
    except ImportError:
        return
    _installed.add(package)
    if not all(hasattr(ssa, name) for name in SSA):
        return
    _replace(ssa, "_run_ssa", lambda blocks: single_assignments(blocks, ssa))
    _replace(typeinfer.ConstraintNetwork, "propagate", propagation(typeinfer))
    _replace(ir.Inst, "_rec_list_vars", listing(ir))
    _replace(config.TargetConfig, "values", lambda config: settings_of(config))
    _stacks.append(config.ConfigStack)
    call_type = functions.BaseFunction.get_call_type
    if not hasattr(call_type, "plain"):
        _replace(functions.BaseFunction, "get_call_type", remembered(call_type))


def _replace(owner: Any, name: str, function: Any) -> None:
    """Numba's own function stays within reach, for tests."""
    function.plain = getattr(owner, name)
    setattr(owner, name, function)


# -------------------------------------------------------------------- static single assignment


def single_assignments(blocks: dict[int, Any], ssa: Any) -> dict[int, Any]:
    """What `_run_ssa` of Numba's module `ssa` makes of blocks."""
    if not blocks:
        return {}
    cfg = ssa.compute_cfg_from_blocks(blocks)
    frontiers = ssa._iterated_domfronts(cfg)
    violators = ssa._find_defs_violators(blocks, cfg)
    names = ssa._CacheListVars()
    scope = next(iter(blocks.values())).scope
    made = {label: _block(ssa, block, block.body) for label, block in blocks.items()}
    for name, labels in _named_in(made, violators).items():
        states: dict[str, Any] = {"scope": scope, "varname": name, "defmap": defaultdict(list)}
        _rewrite(ssa, made, labels, states, ssa._FreshVarHandler())
        phis: dict[int, list[Any]] = defaultdict(list)
        locations = ssa._compute_phi_locations(frontiers, states["defmap"])
        states.update(phimap=phis, cfg=cfg, phi_locations=locations)
        _rewrite(ssa, made, labels, states, ssa._FixSSAVars(names))
        for label, phi in phis.items():
            made[label].body = phi + made[label].body
    if ssa.compute_cfg_from_blocks(made) != cfg:
        raise ssa.errors.CompilerError("CFG mutated in SSA pass")
    return made


def _block(ssa: Any, like: Any, body: list[Any]) -> Any:
    block = ssa.ir.Block(scope=like.scope, loc=like.loc)
    block.body = body
    return block


def _named_in(blocks: dict[int, Any], wanted: dict[str, Any]) -> dict[str, list[int]]:
    """The labels of the blocks that name each of these variables."""
    found: dict[str, list[int]] = {name: [] for name in wanted}
    for label, block in blocks.items():
        for name in {v.name for stmt in block.body for v in stmt.list_vars()}:
            if name in found:
                found[name].append(label)
    return found


def _rewrite(
    ssa: Any, blocks: dict[int, Any], labels: list[int], states: dict[str, Any], handler: Any
) -> None:
    """Put what a handler makes of their statements in place of blocks."""
    assignments = getattr(ssa.ir, "assign_types", ssa.ir.Assign)
    for label in labels:
        block = blocks[label]
        states.update(label=label, block=block)
        body = [
            (handler.on_assign if isinstance(stmt, assignments) else handler.on_other)(states, stmt)
            for stmt in block.body
        ]
        blocks[label] = _block(ssa, block, body)


# -------------------------------------------------------------------- type inference


def propagation(typeinfer: Any) -> Callable[[Any, Any], list[Any]]:
    """`ConstraintNetwork.propagate` with Python's filters of warnings set once."""

    def propagate(self: Any, inferer: Any) -> list[Any]:
        errors: list[Any] = []
        others: list[Any] = []
        fixer = inferer.warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", fixer._category)
            _heard.append(caught)
            try:
                for constraint in self.constraints:
                    try:
                        constraint(inferer)
                    except typeinfer.ForceLiteralArg as error:
                        errors.append(error)
                    except typeinfer.TypingError as error:
                        text, place = str(error), constraint.loc
                        made = typeinfer.TypingError(text, loc=place, highlighting=False)
                        errors.append(typeinfer.utils.chain_exception(made, error))
                    if caught:
                        others += _located(fixer, caught, constraint.loc)
                        caught.clear()
            finally:
                _heard.pop()
        for found in others:
            warnings.warn_explicit(str(found.message), found.category, found.filename, found.lineno)
        return errors

    return propagate


def _located(fixer: Any, caught: list[Any], place: Any) -> list[Any]:
    """Give the inferer's collection of warnings those of its kind; the others."""
    for found in caught:
        if issubclass(found.category, fixer._category):
            where = place.filename, place.line, found.category
            fixer._warnings[where].add(str(found.message))
    return [w for w in caught if not issubclass(w.category, fixer._category)]


def remembered(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`BaseFunction.get_call_type`, once for the same arguments and compilers' settings."""

    def get_call_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
        known = self.__dict__.setdefault("_calls", {})
        key = (context, tuple(args), tuple(kws.items()), *map(_settings, _stacks))
        found = known.get(key)
        if found is not None:
            sig, implementation = found
            self._impl_keys[sig.args] = implementation
            return sig
        before = len(_heard[-1]) if _heard else 0
        sig = plain(self, context, args, kws)
        if _heard and len(_heard[-1]) == before:  # a warning has to come at each place
            known[key] = sig, self._impl_keys[sig.args]
        return sig

    return get_call_type


#: by equal settings, and by the objects that were asked about
_numbers: dict[Any, int] = {}
_numbered: dict[int, tuple[Any, int]] = {}


def _settings(stack: Any) -> int:
    """A number for the compiler's settings of the moment: equal ones have the same."""
    settings = stack.top_or_none()
    if settings is None:
        return -1
    found = _numbered.get(id(settings))
    if found is None:
        number = _numbers.setdefault(settings.copy(), len(_numbers))
        found = _numbered[id(settings)] = settings, number  # kept, so that no other has its id
    return found[1]


# -------------------------------------------------------------------- what is read again and again


def listing(ir: Any) -> Callable[[Any, Any], list[Any]]:
    """`Inst._rec_list_vars`: the variables in a part of an instruction."""
    variables = getattr(ir, "var_types", ir.Var)
    instructions = getattr(ir, "inst_types", ir.Inst)
    kinds: dict[type, int] = {}

    def kind_of(value: Any) -> int:
        found = (variables, instructions, (list, tuple), dict)
        kind = next((k for k, types in enumerate(found) if isinstance(value, types)), len(found))
        kinds[type(value)] = kind
        return kind

    def add(value: Any, found: list[Any]) -> None:
        kind = kinds.get(type(value))
        if kind is None:
            kind = kind_of(value)
        if kind == 0:
            found.append(value)
        elif kind == 1:
            found.extend(value.list_vars())
        elif kind < 4:
            for part in value if kind == 2 else value.values():
                add(part, found)

    def variables_in(self: Any, value: Any) -> list[Any]:
        found: list[Any] = []
        add(value, found)
        return found

    return variables_in


def settings_of(self: Any) -> dict[str, Any]:
    """`TargetConfig.values`."""
    return {name: self._values.get(name, o.default) for name, o in self.options.items()}

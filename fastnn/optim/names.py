"""The names by which a trainer accepts optimisers: each class says its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fastnn.errors import OptionError
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.wrapper import Wrapper


def by_name(classes: Iterable[Any]) -> dict[str, Callable[..., Optimizer]]:
    """Optimisers by name, among the classes of a package.

    A class is called by its `name`, or like itself where it shares the kernels of the class that
    it is derived from; its `variants` are options by further names.
    """
    found: dict[str, Callable[..., Optimizer]] = {}
    for made in classes:
        if not (isinstance(made, type) and issubclass(made, Optimizer)):
            continue
        if made is Optimizer or issubclass(made, Wrapper):  # they need more than options
            continue
        found[vars(made).get("name") or made.__name__.lower()] = made
        for name, options in vars(made).get("variants", {}).items():
            found[name] = partial(made, **options)
    return found


def given_or_default(
    owner: str, optimizer: Any, default: Callable[..., Optimizer], /, **options: Any
) -> Any:
    """The optimiser that was given, or the default one with those options that are not None.

    Raises:
        OptionError: there are options beside an optimiser, which has its own.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if optimizer is None:
        return default(**options)
    if options:
        names = ", ".join(options)
        raise OptionError(
            f"{owner}: expected {names} or an optimizer, got both; give {names} to the optimizer "
            f"itself, such as optimizer=optim.Adam({names.split(', ')[0]}=...)"
        )
    return optimizer

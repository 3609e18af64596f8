"""Answers that solve nothing and claim everything. Every check must give each of them zero points."""

import itertools
from importlib import import_module
from inspect import isfunction
from pkgutil import iter_modules
from typing import Any

import kicourse.checks


class Yes:
    """Agrees with everything: equal to all, callable, indexable, every attribute is itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Yes":
        return self

    def __getattr__(self, name: str) -> "Yes":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: Any) -> "Yes":
        return self

    def __iter__(self) -> Any:
        return iter([self])

    def __float__(self) -> float:
        return 1.0


def echo(*args: Any, **kwargs: Any) -> Any:
    """Give back the first thing that came in."""
    return next(iter([*args, *kwargs.values()]), None)


def constant(value: Any) -> Any:
    """Make a function that returns `value` whatever it is asked."""

    def answer(*args: Any, **kwargs: Any) -> Any:
        return value

    return answer


def endless(*args: Any, **kwargs: Any) -> Any:
    return itertools.repeat("")


def identity(*args: Any, **kwargs: Any) -> Any:
    """Make a module that gives back what comes in, whatever is asked for."""
    import torch

    return torch.nn.Identity()


def helpers() -> dict[str, Any]:
    """Return every public function of the checks package, and its vocabulary."""
    package = kicourse.checks
    found = {name: getattr(package, name) for name in package.__all__}
    for module in (import_module(f"{package.__name__}.{entry.name}") for entry in iter_modules(package.__path__)):
        if not package.by_name(module.__name__.rpartition(".")[2]):
            functions = vars(module).values()
            own = [one for one in functions if isfunction(one) and one.__module__ == module.__name__]
            found |= {f"{one.__module__}.{one.__name__}": one for one in own if not one.__name__.startswith("_")}
    return {f"{package.__name__}.{name.removeprefix('kicourse.checks.')}": one for name, one in found.items()}


LIARS: dict[str, Any] = {
    "None": None,
    "True": True,
    "empty list": [],
    "NaN": float("nan"),
    "yes-object": Yes(),
    "Yes class": Yes,
    "echo": echo,
    "returns None": constant(None),
    "returns True": constant(True),
    "returns []": constant([]),
    "returns {}": constant({}),
    "returns ''": constant(""),
    "returns 0": constant(0),
    "returns 1.0": constant(1.0),
    "returns NaN": constant(float("nan")),
    "returns a yes-object": constant(Yes()),
    "returns its arguments": lambda *args, **kwargs: args,
    "endless iterator": endless,
    "identity module": identity,
    "dict": dict,
    "object": object,
    "str": str,
} | helpers()

"""The corpus: every attack, by theme. `ATTACKS` has them all, by name."""

import importlib
import pkgutil

from tests.hostile.corpus.attack import ATTACKS, Attack, Entry, Target

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ATTACKS", "Attack", "Entry", "Target"]

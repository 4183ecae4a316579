"""Planted faults and healthy models; importing the package enters them all."""

from importlib import import_module
from pkgutil import iter_modules

for module in sorted(each.name for each in iter_modules(__path__)):
    import_module(f"{__name__}.{module}")

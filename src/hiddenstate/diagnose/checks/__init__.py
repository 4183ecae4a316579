"""The checks, one file a theme; importing the package enters all rules into the catalogue."""

from importlib import import_module
from pkgutil import iter_modules

for theme in sorted(each.name for each in iter_modules(__path__)):
    import_module(f"{__name__}.{theme}")

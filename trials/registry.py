"""Components by name: every module of a package registers its classes, so adding one is one file.

A name of the form ``module:function`` or ``path/to/file.py:function`` is the user's own code (see trials.usercode).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

from trials.errors import UserError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind, found in the modules of one package.

    Use ``@KNOBS.register("dropout")`` on the class; the first look-up imports every module of the package.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        def add(cls: type[T]) -> type[T]:
            old = self._classes.get(name, cls)
            if (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):  # not imported anew
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._classes[name] = cls
            self.__dict__.pop("classes", None)  # of the user's own code, which may come after the first look-up
            return cls
        return add

    @cached_property
    def classes(self) -> dict[str, type[T]]:
        """All classes by name, sorted."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        return dict(sorted(self._classes.items()))

    def get(self, name: str, place: str) -> type[T]:
        """The class called ``name``; UserError naming ``place`` if there is none."""
        if name not in self.classes:
            raise UserError(f"{place}: no {self.kind} called {name!r}; {did_you_mean(name, self.classes)}")
        return self.classes[name]

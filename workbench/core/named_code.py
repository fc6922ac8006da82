"""Classes that a person names as "module:Class". Only names that the person typed are imported, none from a file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection
from typing import Any

from workbench.core.errors import ParameterError, UnknownName, nearest

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def names_class(name: str, known: Collection[str]) -> bool:
    """Tell whether a name has the form "module:Class" and its first part is not a known name."""
    return _NAME.fullmatch(name) is not None and name.partition(":")[0] not in known


def class_named(name: str, what: str, known: Collection[str]) -> type[Any]:
    """Import and return the class that "module:Class" names; `what` and `known` are for messages.

    Raises UnknownName where there is no such module or class, ParameterError where the module fails or the name is not
    a class's.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise ParameterError(f"{what} {name!r} needs a module that is not installed: {error}") from error
        raise UnknownName(
            f"there is no {what} and no module {module_name!r} ({nearest(module_name, tuple(known))}): for a module of "
            "your own, put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ParameterError(
            f"{what} {name!r}: its module cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if (found := getattr(module, attribute, None)) is None:
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        raise UnknownName(f"module {module_name!r} has no class {attribute!r}: {nearest(attribute, classes)}")
    if not isinstance(found, type):
        raise ParameterError(f"{what} {name!r} is {type(found).__name__}, not a class: name the class")
    return found

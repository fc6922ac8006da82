"""Check a notebook's parameters before anything runs: every name is declared, every value has the declared type.

papermill only warns about an unknown name and passes every text unchanged; here both are errors.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, ParameterError, nearest

_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One parameter as the notebook's parameters cell declares it."""

    name: str
    type: str
    default: str
    help: str


def import_papermill() -> types.ModuleType:
    """Return papermill, imported without jsonschema's slow optional grammar (two to three seconds)."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill

    return papermill


def read_notebook(path: str | Path) -> dict[str, Any]:
    """Read a notebook as plain JSON. Raises NotPresent for a missing file, ParameterError for one of another format."""
    path = Path(path)
    if not path.is_file():
        raise NotPresent(f"no notebook at {str(path)!r}")
    try:
        body = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ParameterError(f"{str(path)!r} is not a notebook: {error}") from error
    if not isinstance(body, dict) or not isinstance(body.get("cells"), list) or body.get("nbformat") != 4:
        raise ParameterError(f"{str(path)!r} is not a notebook of format 4")
    return body


def declared_parameters(notebook: str | Path) -> dict[str, Declared]:
    """Return the parameters that a notebook's cell tagged `parameters` declares, by name."""
    read_notebook(notebook)
    import_papermill()
    from papermill.inspection import _infer_parameters  # the public function needs a kernel's name in the notebook
    from papermill.iorw import load_notebook_node

    found = _infer_parameters(load_notebook_node(str(notebook)), name="python3", language="python")
    types = {p.name: _type_of(p.inferred_type_name, p.default) for p in found}
    return {p.name: Declared(name=p.name, type=types[p.name], default=p.default, help=p.help) for p in found}


def smoke_parameters(notebook: str | Path) -> dict[str, Any]:
    """Return the small settings in a notebook's metadata, for a quick run."""
    smoke = read_notebook(notebook).get("metadata", {}).get("workbench", {}).get("smoke", {})
    if not isinstance(smoke, dict):
        raise ParameterError(f"{str(notebook)!r}: metadata.workbench.smoke must map names to values, not {smoke!r}")
    return smoke


def resolve_parameters(notebook: str | Path, given: Mapping[str, Any], *, smoke: bool = False) -> dict[str, Any]:
    """Return the values to pass to a notebook, each of its declared type.

    Texts (from the command line) are converted: `[0,5,10]` and `0,5,10` are lists, `none` and `null` are None where the
    type is Optional. Raises ParameterError for an unknown name or a value of another type.
    """
    declared = declared_parameters(notebook)
    asked = {**(smoke_parameters(notebook) if smoke else {}), **given}
    for name in asked:
        if name not in declared:
            hint = nearest(name, tuple(declared)) if declared else "it declares none"
            raise ParameterError(f"{Path(notebook).name} has no parameter {name!r}: {hint}")
    return {name: _convert(value, declared[name]) for name, value in asked.items()}


def all_parameters(notebook: str | Path, given: Mapping[str, Any], smoke: bool = False) -> dict[str, Any]:
    """Return every declared parameter with the value that a run would have. Raises what `resolve_parameters` raises."""
    asked = resolve_parameters(notebook, given, smoke=smoke)
    return {name: asked[name] if name in asked else ast.literal_eval(d.default) for name, d in
            declared_parameters(notebook).items()}  # fmt: skip


def _type_of(annotation: str, default: str) -> str:
    """Return the declared type; without one, or for a bare `list`, the default's; a bare None takes any text."""
    if annotation not in ("None", "list", "List"):
        return annotation
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return "str"
    if isinstance(value, list | tuple):
        kinds = {type(v).__name__ for v in value}
        return f"list[{kinds.pop() if len(kinds) == 1 else 'str'}]"
    return "Optional[str]" if value is None else type(value).__name__


class _WrongType(Exception):
    pass


def _convert(value: Any, declared: Declared) -> Any:
    try:
        return _as(value, ast.parse(declared.type, mode="eval").body)
    except _WrongType:
        note = f" ({declared.help})" if declared.help else ""
        wanted = _in_words(declared.type)
        raise ParameterError(f"parameter {declared.name!r}{note} takes {wanted}, not {value!r}") from None


def _in_words(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    if isinstance(node, ast.Subscript):
        inner = _in_words(ast.unparse(node.slice))
        return f"{inner} or none" if ast.unparse(node.value) == "Optional" else f"a list, each {inner}"
    return _KINDS.get(text, text)


def _as(value: Any, wanted: ast.expr) -> Any:
    if isinstance(wanted, ast.Subscript):
        if ast.unparse(wanted.value) == "Optional":
            none = value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null"))
            return None if none else _as(value, wanted.slice)
        return [_as(v, wanted.slice) for v in _items(value)]
    return _scalar(value, ast.unparse(wanted))


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, str):
        raise _WrongType
    text = value.strip()
    if text.startswith("[") != text.endswith("]"):
        raise _WrongType
    with contextlib.suppress(ValueError):
        if isinstance(parsed := json.loads(text), list):
            return parsed
    text = text.removeprefix("[").removesuffix("]").strip()
    return [part.strip() for part in text.split(",")] if text else []


def _scalar(value: Any, wanted: str) -> Any:
    if wanted == "str" and isinstance(value, str | Path):
        return str(value)
    if wanted == "bool" and str(value).strip().lower() in ("true", "false", "yes", "no"):
        return str(value).strip().lower() in ("true", "yes")
    if wanted not in _KINDS:
        return value  # an unknown type, which the notebook's own code checks
    if wanted in ("str", "bool") or isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _WrongType
    try:
        number = int(value) if wanted == "int" and not isinstance(value, float) else float(value)
    except ValueError:
        raise _WrongType from None
    if not math.isfinite(number) or (wanted == "int" and number != int(number)):
        raise _WrongType
    return int(number) if wanted == "int" else number

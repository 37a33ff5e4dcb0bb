"""Recipe files: Python syntax, read as data.

A recipe is a ``.py`` file of one statement, ``config = Name(section=Section(key=value, ...), ...)``, besides a docstring
and imports, which are there for editors. It is parsed, never executed: literals are all the values it may hold.
"""

import ast
import dataclasses
import types
import typing
from typing import Any, TypeVar

from dposer.errors import InputError
from dposer.files import PathLike, existing_file

T = TypeVar("T")


def read_config(path: PathLike, cls: type[T]) -> T:
    """Read a recipe file into the dataclass ``cls``.

    Raises:
        InputError: not a file, not Python syntax, anything but literals, an unknown key or a wrong type.
    """
    path = existing_file(path, "a configuration file (.py)", "see configs/ for examples")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not Python syntax ({error}), expected `config = {cls.__name__}(...)`") from error
    statements = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_text(node)]
    match statements:
        case [ast.Assign(targets=[ast.Name(id="config")], value=value)]:
            return build(cls, _values(value, str(path)), str(path))
    raise InputError(f"{path}: expected nothing but one `config = {cls.__name__}(...)`; recipes are read, not executed")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _values(node: ast.expr, source: str) -> Any:
    """Turn calls with keyword arguments into dicts and everything else into its literal value."""
    if isinstance(node, ast.Call):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise InputError(f"{source}:{node.lineno}: `{ast.unparse(node)[:60]}` has positional arguments, expected keywords only")
        return {str(keyword.arg): _values(keyword.value, source) for keyword in node.keywords}
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        text = ast.unparse(node)[:60]
        raise InputError(
            f"{source}:{node.lineno}: `{text}` is not a literal; recipes are read, not executed, so write the value out"
        ) from error


def build(cls: type[T], values: Any, source: str) -> T:
    """Build the dataclass ``cls`` from nested dicts, checking every key and type."""
    if not isinstance(values, dict):
        raise InputError(f"{source}: {cls.__name__} is {values!r}, expected a group of keys")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{source}: unknown key {', '.join(unknown)} in {cls.__name__}; known: {', '.join(sorted(known))}")
    return cls(**{key: _checked(hints[key], value, f"{cls.__name__}.{key}", source) for key, value in values.items()})


def _checked(hint: Any, value: Any, name: str, source: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, source)
    options = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        ok = value in options
    elif origin in (typing.Union, types.UnionType):
        ok = any(value is None if o is type(None) else type(value) is o for o in options)
    elif hint is float:
        ok = type(value) in (int, float)
    else:
        ok = type(value) is hint
    if not ok:
        expected = " | ".join(map(repr, options)) if options else hint.__name__
        raise InputError(f"{source}: {name} = {value!r}, expected {expected}")
    return float(value) if hint is float else value

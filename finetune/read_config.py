"""YAML files to typed dataclasses, 1:1; an unknown key is an error with a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from finetune.config import RunConfig
from finetune.diffusion_config import DiffusionStage
from mv3d.errors import Mv3dError

_SHORTLY = reprlib.Repr()  # YAML's aliases make values that are told without end
_SHORTLY.maxlevel = 2


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file; ``overrides`` are ``section.key=value`` with YAML values.

    A ``base`` that is named is also what the UNet begins with, unless ``init`` says otherwise.

    Raises:
        Mv3dError: for a file that is no YAML mapping, an unknown key, a missing key or a value of another type.
    """
    try:
        if path.exists() and not path.is_file():
            raise Mv3dError(f"{path} is no file; name a YAML file, such as the presets in configs/")
        tree = _parse(path.read_text(), f"{path} is")
    except FileNotFoundError:
        raise Mv3dError(f"{path} does not exist; presets are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Mv3dError(f"{path} is no readable YAML: {error}") from error
    if not isinstance(tree, dict):
        raise Mv3dError(f"{path} must hold keys and values, not {type(tree).__name__}")
    for override in overrides or []:
        name, equals, value = override.partition("=")
        if not equals:
            raise Mv3dError(f"{override!r} is no key=value", argument="set")
        _put(tree, name.split("."), _parse(value, f"{override[:60]}: the value is", argument="set"))
    if tree.get("base") is not None:
        tree.setdefault("init", "base")
    return _build(RunConfig, tree, str(path))


def _parse(text: str, what: str, *, argument: str | None = None) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # some numbers and dates are none
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise Mv3dError(f"{what} no readable YAML: {reason}", argument=argument) from None


def _put(tree: dict, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Mv3dError(f"{'.'.join(names)} goes through {name}, which is a value", argument="set")
    tree[names[-1]] = value


def _build(kind: type, tree: dict, where: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in tree:
        if key not in known:
            raise Mv3dError(f"{where}: unknown key {_SHORTLY.repr(key)}{_hint(str(key), known)}")
    required = [n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING and n not in tree]
    if required:
        raise Mv3dError(f"{where}: missing {', '.join(required)}")
    return kind(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in tree.items()})


def _hint(key: str, known: Collection[str]) -> str:
    below = {field.name for field in dataclasses.fields(DiffusionStage)}
    if key in below and "diffusion" in known:
        return f"; did you mean 'diffusion.{key}'?"
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise Mv3dError(f"{where} must hold keys and values, got {_SHORTLY.repr(value)}")
        return _build(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is Annotated:
        plain, limits = typing.get_args(kind)
        checked = _convert(plain, value, where)
        limits.check(checked, where)
        return checked
    if origin in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _convert(kinds[0], value, where)
    if origin is tuple:
        kind = typing.get_args(kind)[0]
        if kind is Path and isinstance(value, str):  # one folder needs no brackets
            value = [value]
        if not isinstance(value, list) or not value:
            raise Mv3dError(f"{where} must be a list of one or more, got {_SHORTLY.repr(value)}")
        return tuple(_convert(kind, v, where) for v in value)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        known = ", ".join(map(str, typing.get_args(kind)))
        raise Mv3dError(f"{where} must be one of {known}, got {_SHORTLY.repr(value)}")
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        try:
            return Path(value).expanduser()
        except RuntimeError as error:  # the home of nobody that is known
            raise Mv3dError(f"{where} is {value}: {error}") from None
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as a string
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    if type(value) is kind and kind is not float:
        return value
    wanted = {float: "a finite number", Path: "a path"}.get(kind) or getattr(kind, "__name__", kind)
    raise Mv3dError(f"{where} must be {wanted}, got {_SHORTLY.repr(value)}")

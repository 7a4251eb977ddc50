"""The shapes and kinds of numbers that signatures promise, checked while tests run.

jaxtyping's import hook decorates every function of `CHECKED`; here is what it checks them with. Arrays alone are
checked, where they are and in tuples: whether an int may be a float is pyright's business.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from jaxtyping import AbstractArray

CHECKED = (
    "mv3d.cameras",
    "mv3d.clip",
    "mv3d.orbit",
    "mv3d.pixels",
    *(f"mv3d.model.{name}" for name in ("alpha", "autoencoder", "coarse", "conditioning", "denoiser", "drawing")),
    *(f"mv3d.model.{name}" for name in ("frustum", "flow", "sampling", "surface", "wan_video")),
)


def arrays(function: Callable) -> Callable:
    """Check the arrays among a function's arguments and what it returns."""
    signature, hints = inspect.signature(function), function.__annotations__

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if function.__name__ == "__init__" and hasattr(args[0], "__post_init__"):  # looks at what it is given, itself
            return function(*args, **kwargs)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if not _fits(value, hints.get(name, Any)):
                raise TypeError(name)
        returned = function(*args, **kwargs)
        if not _fits(returned, hints.get("return", Any)):
            raise TypeError("return")
        return returned

    return checked


def _fits(value: Any, hint: Any) -> bool:
    if hint is NoneType:
        return value is None
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return isinstance(value, hint)
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is tuple and ... not in parts:
        return len(value) == len(parts) and all(_fits(item, part) for item, part in zip(value, parts, strict=True))
    return True

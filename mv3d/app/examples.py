"""Pictures to begin with: some of ``assets/``, which the wheel has beside this file."""

from __future__ import annotations

from pathlib import Path

from mv3d.errors import Mv3dError

EXAMPLES = ("chair", "elephant", "car", "temple", "house", "toadstool")
_PLACES = (Path(__file__).with_name("pictures"), Path(__file__).parents[2] / "assets")


def find_examples() -> dict[str, Path]:
    """The pictures by their names, as far as they are there."""
    found = {name: next((p for place in _PLACES if (p := place / f"{name}.png").is_file()), None) for name in EXAMPLES}
    return {name: path for name, path in found.items() if path is not None}


def find_example(name: str) -> Path:
    """The picture of that name; raises `Mv3dError` if there is none."""
    found = find_examples()
    if name not in found:
        raise Mv3dError(f"there is no example {name[:60]}; take one of {', '.join(found)}")
    return found[name]

"""What the browser gets to show: pictures and turntables as data, small enough to be sent at once."""

from __future__ import annotations

import base64
import json
import shlex
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from mv3d.app.results import PageResult
from mv3d.options import Matte
from mv3d.orbit import Orbit
from mv3d.pixels import Frames, composite, to_uint8
from mv3d.transforms import CLIP_FILE

_PICTURE_PX = 1024  # of the picture that is shown, and brushed
_SMALL_PX = 96  # of the turntables side by side


def show_cut_out(name: str, picture: Frames, freed: Frames) -> dict[str, Any]:
    """A picture (H, W, 4) and its cut-out of the same size: colours, and where the object is, each as a file."""
    colours = Image.fromarray(to_uint8(composite(picture)))
    alpha = Image.fromarray(to_uint8(freed[..., 3]))
    for shown in (colours, alpha):
        shown.thumbnail((_PICTURE_PX, _PICTURE_PX))
    return {"name": name, "picture": _as_url(colours, "WEBP", quality=88), "object": _as_url(alpha, "PNG")}


def show_turn(folder: Path) -> dict[str, Any]:
    """All frames of an orbit folder, or of a clip's."""
    is_clip = (folder / CLIP_FILE).exists()
    return {"kind": "clip" if is_clip else "views", "frames": _frames(folder, None)}


def show_surface(drawn: Orbit) -> dict[str, Any]:
    """Views that are in no folder yet: those drawn from the surface alone."""
    frames = (Image.fromarray(frame, "RGBA") for frame in to_uint8(drawn.frames))
    return {"kind": "preview", "frames": [_as_frame_url(frame) for frame in frames]}


def show_small(result: PageResult, chosen: PageResult | None) -> dict[str, Any]:
    """A finished result among others."""
    seed = _facts(result).get("seed")
    return {
        "id": result.name,
        "name": result.picture.stem,
        "seed": seed,
        "is_chosen": chosen is not None and chosen.name == result.name,
        "frames": _small_frames(result.orbit),
    }


def command_behind(result: PageResult) -> str:
    """The command that makes a finished result, as its folder has it."""
    return str(_facts(result).get("command") or "")


def matte_behind(result: PageResult) -> Matte:
    """How a finished result was cut out."""
    words = shlex.split(command_behind(result))
    named = words[words.index("--matte") + 1] if "--matte" in words else "auto"
    return next((matte for matte in get_args(Matte) if matte == named), "auto")


@lru_cache(maxsize=256)
def _small_frames(folder: Path) -> list[str]:
    return _frames(folder, _SMALL_PX)  # of a finished orbit, which does not change


def _facts(result: PageResult) -> dict[str, Any]:
    name = CLIP_FILE if (result.orbit / CLIP_FILE).exists() else "transforms.json"
    return json.loads((result.orbit / name).read_text(encoding="utf-8"))["mv3d"]


def _frames(folder: Path, size_px: int | None) -> list[str]:
    urls = []
    for path in sorted((folder / "frames").glob("*.png")):
        with Image.open(path) as frame:
            if size_px is not None:
                frame.thumbnail((size_px, size_px))
            urls.append(_as_frame_url(frame))
    return urls


def _as_frame_url(frame: Image.Image) -> str:
    return _as_url(frame, "WEBP", quality=90, method=2)


def _as_url(picture: Image.Image, kind: str, **settings: Any) -> str:
    data = BytesIO()
    picture.save(data, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"

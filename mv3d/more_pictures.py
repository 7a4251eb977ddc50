"""Pictures of an object from other sides, as ``--view FILE@AZIMUTH,ELEVATION`` names them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.image import Framing, crop, cut_out, load_mask, load_picture
from mv3d.options import OrbitOptions
from mv3d.pixels import Frames, resize
from mv3d.registration import register

_MOST = 16
_STEEPEST_DEG = 80.0


@dataclass(frozen=True)
class NamedView:
    """A picture and where it was taken from: counter-clockwise beside the first one, seen from above."""

    path: Path
    azimuth_deg: float
    elevation_deg: float | None
    """None: as the first one's."""


def parse_views(texts: Sequence[str]) -> tuple[NamedView, ...]:
    """Read what the options say.

    Raises:
        Mv3dError: naming what is no view.
    """
    if len(texts) > _MOST:
        raise Mv3dError(f"{len(texts)} views; {_MOST} beside the picture are the most", argument="view")
    return tuple(map(_parse, texts))


def _parse(text: str) -> NamedView:
    name, at, place = text.rpartition("@")
    try:
        if not at or not name:
            raise ValueError
        azimuth_deg, *rest = (float(part) for part in place.split(","))
        (elevation_deg,) = rest or (None,)
    except ValueError:
        raise Mv3dError(
            f"{text!r} says no view; write FILE@AZIMUTH or FILE@AZIMUTH,ELEVATION, e.g. back.jpg@180", argument="view"
        ) from None
    if not math.isfinite(azimuth_deg) or not abs(azimuth_deg) <= 360:
        raise Mv3dError(f"{text}: azimuth {azimuth_deg:g} is outside +-360 degrees", argument="view")
    if elevation_deg is not None and not abs(elevation_deg) <= _STEEPEST_DEG:
        raise Mv3dError(f"{text}: elevation {elevation_deg:g} is outside +-{_STEEPEST_DEG:g} degrees", argument="view")
    return NamedView(Path(name), azimuth_deg % 360, elevation_deg)


def load_cut_outs(picture: Path, options: OrbitOptions) -> list[Frames]:
    """A picture and its other views, cut out as the options say; a mask is the picture's own.

    Raises:
        Mv3dError: as `mv3d.image` does, naming the file; and for one that is said to be framed and not square.
    """
    cut_outs = []
    for path in (picture, *(view.path for view in parse_views(options.view))):
        rgba = load_picture(path)
        height_px, width_px, _ = rgba.shape
        if options.keep_framing and height_px != width_px:
            raise Mv3dError(
                f"{path} is {width_px}x{height_px}; a picture that is framed already is square", argument="keep_framing"
            )
        mask = None if options.mask is None or cut_outs else load_mask(options.mask, path)
        try:
            cut_outs.append(cut_out(rgba, options.matte, mask))
        except Mv3dError as error:
            raise Mv3dError(f"{path}: {error}") from error
    return cut_outs


@dataclass(frozen=True, eq=False)
class FramedTogether:
    """Cut-outs of one object, the first picture's first, and how each is framed; None if it is framed already."""

    cut_outs: tuple[Frames, ...]
    framings: tuple[Framing | None, ...]

    def at(self, size_px: int) -> list[Frames]:
        """All of them, (size_px, size_px, 4) each."""
        return [
            resize(rgba, size_px, size_px) if framing is None else crop(rgba, framing, size_px)
            for rgba, framing in zip(self.cut_outs, self.framings, strict=True)
        ]

    def own_px(self) -> int:
        """The size at which the first picture is neither enlarged nor reduced."""
        framing = self.framings[0]
        return len(self.cut_outs[0]) if framing is None else math.ceil(2 * framing.half)


def frame_together(
    cut_outs: Sequence[Frames], poses: Sequence[tuple[float, float]], *, keep_framing: bool = False
) -> FramedTogether:
    """Frame pictures of one object, whose cameras stand at azimuths and elevations, in degrees."""
    if keep_framing:
        return FramedTogether(tuple(cut_outs), (None,) * len(cut_outs))
    return FramedTogether(tuple(cut_outs), tuple(register(cut_outs, poses)))

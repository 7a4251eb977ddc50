"""A photo or a cut-out becomes a model input: read, freed from its background, framed as the training views are.

Pictures are float32 (H, W, 4) RGBA in [0, 1], sRGB, straight alpha, as the frames of an orbit are.
"""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.matte import NotPlainError, matte_mask, matte_u2net, matte_without_shadow
from mv3d.options import Matte
from mv3d.pixels import Frames, composite, from_uint8, resize

MAX_MEGAPIXELS = 64
MIN_SIDE_PX = 16
FILL = 0.92
_WORKING_SIDE_PX = 2048  # far above any model's resolution; larger pictures only cost time and memory
_COLOURED = 0.05  # mean difference of a pixel's channels from which a picture is no mask; JPEG makes a little
_SEEN = 0.05  # alpha from which a pixel counts when an object is framed
# Still pictures that Pillow decodes by itself; EPS, for one, would start another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "TGA", "ICO", "QOI")

_log = logging.getLogger(__name__)


def load_picture(path: Path) -> Frames:
    """Read a picture of any mode as sRGB, turned upright by its EXIF tag and reduced to 2048 px at most.

    Raises:
        Mv3dError: if it cannot be opened, is damaged or a pipe, or its header announces an unreasonable size.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        with _open(path) as picture:
            width_px, height_px = picture.size
            if width_px * height_px > MAX_MEGAPIXELS * 1e6:
                raise Mv3dError(f"{path} is {width_px}x{height_px}, over {MAX_MEGAPIXELS} megapixels; make it smaller")
            if min(width_px, height_px) < MIN_SIDE_PX:
                raise Mv3dError(f"{path} is {width_px}x{height_px}; at least {MIN_SIDE_PX} pixels a side are needed")
            try:
                num_pictures = getattr(picture, "n_frames", 1)
                picture.load()
                rgba = _to_rgba(picture)
            except Exception as error:  # whatever Pillow's readers stumble over in a damaged file
                raise Mv3dError(f"{path} is damaged or of an unknown kind: {error}; save it again as PNG") from error
    if num_pictures > 1:
        _log.warning("%s holds %d pictures; the first is used", path, num_pictures)
    return rgba


def load_mask(path: Path, picture: Path) -> NDArray[np.float32]:
    """Read where the object of a picture is, (H, W) in [0, 1]: by the alpha of ``path``, or its grey if it is opaque.

    Raises:
        Mv3dError: as `load_picture`, and if it has another size than the picture, is coloured, or empty.
    """
    rgba = load_picture(path)
    (width_px, height_px), (wanted_width_px, wanted_height_px) = upright_size(path), upright_size(picture)
    if (width_px, height_px) != (wanted_width_px, wanted_height_px):
        raise Mv3dError(
            f"{path} is {width_px}x{height_px} and {picture} is {wanted_width_px}x{wanted_height_px}; give a mask of "
            "the picture's size",
            argument="mask",
        )
    mask = rgba[..., 3]
    if (mask == 1).all():
        if np.ptp(rgba[..., :3], axis=-1).mean() > _COLOURED:
            raise Mv3dError(
                f"{path} is a coloured picture without transparency; a mask is grey, and white where the object is",
                argument="mask",
            )
        mask = rgba[..., :3].mean(axis=-1)
    if not (mask > 0.5).any():
        raise Mv3dError(f"{path} is empty: nothing in it is white or opaque; make it so where the object is")
    return mask


def cut_out(rgba: Frames, matte: Matte = "auto", mask: NDArray[np.float32] | None = None) -> Frames:
    """Free the object from its background.

    ``auto`` takes the picture's own alpha where it has some, else the colour of a plain background, else U²-Net. A
    ``mask`` (H, W) goes before them all. ``none`` keeps everything, on white.

    Raises:
        Mv3dError: if the background is not plain though it is said to be, or nothing is left.
    """
    if matte == "none":
        return np.concatenate([composite(rgba), np.ones_like(rgba[..., 3:])], axis=-1)
    if mask is not None:
        freed = matte_mask(composite(rgba), mask)
    elif matte == "alpha" or (matte == "auto" and _has_cut_out(rgba)):
        freed = rgba
    elif matte == "u2net":
        freed = matte_u2net(composite(rgba))
    else:
        try:
            freed = matte_without_shadow(composite(rgba))
        except NotPlainError as error:
            if matte == "plain":
                raise Mv3dError(
                    f"the background cannot be removed by colour: {error}; leave the matte to auto", argument="matte"
                ) from error
            freed = matte_u2net(composite(rgba))
    if not (freed[..., 3] > 0.5).any():
        raise Mv3dError(
            "nothing is left of the object: the picture is transparent everywhere; try another matte", argument="matte"
        )
    return freed


class Framing(NamedTuple):
    """The square of a picture that becomes a frame, in its pixels; it may reach beyond the picture."""

    x: float
    """Of its middle."""
    y: float
    half: float
    """Of its side."""


def frame_picture(rgba: Frames, size_px: int, fill: float = FILL) -> Frames:
    """Centre the object and scale it as in the training views; returns (size_px, size_px, 4).

    Those are framed by the object's bounding sphere, so that a turn never leaves the frame. One picture tells of
    that sphere the circle around the middle of the silhouette's bounding box: its radius becomes ``fill`` times half
    the frame. (Framing by the box itself would show flat and tall objects larger than any training view does.)

    Raises:
        Mv3dError: if the picture is transparent everywhere.
    """
    return crop(rgba, framing_of(rgba, fill), size_px)


def crop(rgba: Frames, framing: Framing, size_px: int) -> Frames:
    """The square of a picture, resampled to (size_px, size_px, 4); beyond its silhouette's box it is empty."""
    left, right, upper, lower = _silhouette_box(rgba)
    margin = ceil(framing.half + max(abs(left + right - 2 * framing.x), abs(upper + lower - 2 * framing.y))) + 1
    padded = np.pad(rgba[upper:lower, left:right], ((margin, margin), (margin, margin), (0, 0)))
    x, y = framing.x - left + margin, framing.y - upper + margin
    half = framing.half
    return resize(padded, size_px, size_px, (x - half, y - half, x + half, y + half))


def framed_px(rgba: Frames, fill: float = FILL) -> int:
    """The size at which `frame_picture` neither enlarges nor reduces the object.

    Raises:
        Mv3dError: if the picture is transparent everywhere.
    """
    return ceil(2 * framing_of(rgba, fill).half)


def framing_of(rgba: Frames, fill: float = FILL) -> Framing:
    """The framing of `frame_picture`; raises as it does."""
    left, right, upper, lower = _silhouette_box(rgba)
    y, x = np.nonzero(rgba[..., 3] > _SEEN)
    centre_x, centre_y = (left + right) / 2, (upper + lower) / 2
    radius = np.hypot(np.abs(x + 0.5 - centre_x) + 0.5, np.abs(y + 0.5 - centre_y) + 0.5).max()
    return Framing(centre_x, centre_y, radius / fill)


def _silhouette_box(rgba: Frames) -> tuple[int, int, int, int]:
    """Its left, right, upper and lower end."""
    y, x = np.nonzero(rgba[..., 3] > _SEEN)
    if len(x) == 0:
        raise Mv3dError("there is nothing to frame: the picture is transparent everywhere")
    return x.min(), x.max() + 1, y.min(), y.max() + 1


def _open(path: Path) -> Image.Image:
    check_readable_file(path)
    limit, Image.MAX_IMAGE_PIXELS = (
        Image.MAX_IMAGE_PIXELS,
        None,
    )  # load_picture has its own limit, with a clearer message
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        raise Mv3dError(f"{path} is no picture mv3d can read; convert it to PNG or JPEG") from None
    except OSError as error:
        raise Mv3dError(f"{path} cannot be opened: {error.strerror or error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture that `load_picture` reads, turned by its EXIF tag."""
    with warnings.catch_warnings(action="ignore"), _open(path) as picture:
        width_px, height_px = picture.size
        is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height_px, width_px) if is_turned else (width_px, height_px)


def _to_rgba(picture: Image.Image) -> Frames:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        levels = np.asarray(picture)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("grey levels outside 0..65535")
        picture = Image.fromarray(((levels.astype(np.float32) / 257) + 0.5).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pixels")
    if picture.mode not in ("RGB", "RGBA", "CMYK") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    picture.thumbnail((_WORKING_SIDE_PX, _WORKING_SIDE_PX))
    return from_uint8(np.asarray(_to_srgb(picture).convert("RGBA")))


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Convert from the embedded colour profile (phones write Display P3), where there is a valid one."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(picture, source, target, outputMode=mode) or picture
    except (ImageCms.PyCMSError, OSError):
        return picture


def _has_cut_out(rgba: Frames) -> bool:
    """Tell a cut-out from an opaque picture with, say, rounded corners."""
    return bool((rgba[..., 3] < 0.5).mean() > 0.01)

"""Where the object is, by the visitor's hand: brushed on the page, or a file of his own."""

from __future__ import annotations

import base64
import binascii
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mv3d.app.results import MASK, PageResult
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.image import MAX_MEGAPIXELS, load_mask, upright_size

_PREFIX = "data:image/png;base64,"


def save_brushed(result: PageResult, url: str) -> None:
    """Keep what was brushed, a PNG in a data URL and white where the object is, at the picture's own size.

    Raises:
        Mv3dError: if it is no such thing, or nothing in it is white.
    """
    try:
        if not url.startswith(_PREFIX):
            raise ValueError("no PNG")
        brushed = Image.open(BytesIO(base64.b64decode(url[len(_PREFIX) :], validate=True)), formats=["PNG"])
        if brushed.width * brushed.height > MAX_MEGAPIXELS * 1e6:
            raise ValueError(f"{brushed.width}x{brushed.height} pixels")
        grey = brushed.convert("L")
    except (ValueError, OSError, binascii.Error, UnidentifiedImageError) as error:
        raise Mv3dError(f"the brushed mask cannot be read ({error}); brush it again") from error
    with whole_file(result.folder / MASK) as partial:
        grey.resize(upright_size(result.picture), Image.Resampling.BILINEAR).save(partial)
    _check(result)


def save_own(result: PageResult, path: Path) -> None:
    """Keep a mask file; raises `Mv3dError` as ``mv3d orbit --mask`` would."""
    load_mask(path, result.picture)
    with whole_file(result.folder / MASK) as partial:
        shutil.copyfile(path, partial)


def _check(result: PageResult) -> None:
    assert result.mask is not None
    try:
        load_mask(result.mask, result.picture)
    except Mv3dError:
        result.mask.unlink()
        raise

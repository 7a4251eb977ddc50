"""Words that can be read on an object, found by PP-OCR's small models out of the package rapidocr."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mv3d.errors import Mv3dError
from mv3d.orbit import Orbit
from mv3d.pixels import to_uint8

_VIEWS, _COLUMNS = 7, 4
_SIZE_PX = 256
_FEWEST_LETTERS, _FEWEST_KINDS = 3, 2  # slats and rims are read as 1111 and OOO, folds as single signs
_LEAST_ON_OBJECT = (
    0.8  # of the word's box: what is written stands on something; legs and rails that look like III do not
)
_UNSURE = 0.5  # below this nothing is kept


@dataclass(frozen=True)
class Word:
    """One reading in one view."""

    text: str
    confidence: float
    """Of the reader, 0 to 1."""
    share: float
    """Of the silhouette, covered by the word's box."""
    view: int


class TextReader:
    """Reads orbits; loading the models takes a second, so one reader is for many of them.

    Raises:
        Mv3dError: if the package is not installed.
    """

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise Mv3dError(
                'to find text, pip install -c constraints.txt -e ".[curate]"; or allow all by most_text: 1 in the rules'
            ) from None
        engine = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        self._read = RapidOCR(
            params=engine
            | {"Global.log_level": "error", "Global.use_cls": False, "Global.text_score": _UNSURE}
            | {"Det.limit_side_len": 2 * _SIZE_PX}  # the shorter side of what is read: not enlarged further
        )

    def words(self, orbit: Orbit) -> tuple[Word, ...]:
        """What can be read in up to seven views, evenly around, on white."""
        from skimage.draw import polygon

        views = sorted({k * len(orbit) // _VIEWS for k in range(_VIEWS)})
        some = orbit.select(views).resized(_SIZE_PX)
        covered = some.frames[..., 3] > 0.5
        rows = -(-_VIEWS // _COLUMNS)
        tiles = np.full((rows * _COLUMNS, _SIZE_PX, _SIZE_PX, 3), 255, np.uint8)
        tiles[: len(views)] = to_uint8(some.on())
        sheet = tiles.reshape(rows, _COLUMNS, _SIZE_PX, _SIZE_PX, 3).swapaxes(1, 2)
        sheet = sheet.reshape(rows * _SIZE_PX, _COLUMNS * _SIZE_PX, 3)
        found = self._read(np.ascontiguousarray(sheet[..., ::-1]))  # it wants OpenCV's order of colours
        words = []
        for corners, text, confidence in zip(*_readings(found), strict=True):
            column, row = (corners.mean(axis=0) // _SIZE_PX).astype(int)
            tile = row * _COLUMNS + column
            if not _is_word(text) or tile >= len(views):
                continue
            x, y = (corners - (column * _SIZE_PX, row * _SIZE_PX)).T
            on_object = covered[tile][polygon(y, x, covered[tile].shape)]
            if len(on_object) and on_object.mean() >= _LEAST_ON_OBJECT:
                share = on_object.sum() / covered[tile].sum()
                words.append(Word(text, round(float(confidence), 3), round(float(share), 4), views[tile]))
        return tuple(words)


def text_share(words: Iterable[Word], least_confidence: float) -> float:
    """Share of the silhouette that words cover which are read with this confidence, in the view where it is largest."""
    shares: dict[int, float] = {}
    for word in words:
        if word.confidence >= least_confidence:
            shares[word.view] = shares.get(word.view, 0.0) + word.share
    return min(1.0, max(shares.values(), default=0.0))


def _readings(found) -> tuple:
    return ((), (), ()) if found.boxes is None else (found.boxes, found.txts, found.scores)


def _is_word(text: str) -> bool:
    letters = [letter for letter in text.lower() if letter.isalnum()]
    return len(letters) >= _FEWEST_LETTERS and len(set(letters)) >= _FEWEST_KINDS

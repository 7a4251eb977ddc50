"""Scores kept between runs of curation, so that trying other thresholds measures and reads nothing again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mv3d.orbit import load_orbit
from render.curation.scores import Scores, score_orbit
from render.curation.text import TextReader, Word

_FILE = "scores.jsonl"


class Scorebook:
    """The scores of a folder of orbits, in ``scores.jsonl``; a line is added when an orbit has been measured or read.

    An orbit that was rendered again since then is measured again.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._path = place / _FILE
        self._reader: TextReader | None = None
        self._known: dict[str, tuple[Scores, bool]] = {}
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        for line in lines:
            try:
                kept = json.loads(line)
                words = tuple(Word(**word) for word in kept["scores"].pop("words"))
                look = np.array(kept["scores"].pop("look"), dtype=np.float32)
                scores = Scores(**kept["scores"], look=look, words=words)
                self._known[_key(kept["orbit"], kept["rendered_at"])] = scores, kept["read"]
            except (ValueError, KeyError, TypeError):
                continue  # a line that was being written when the run was killed, or from before a change

    def scores(self, orbit: str, *, read: bool = False) -> Scores:
        """The scores of an orbit folder inside the place; with its words if it is to be ``read``.

        Raises:
            Mv3dError: if the orbit is damaged, or the reader of text is not installed.
        """
        key = _key(orbit, self._rendered_at(orbit))
        if key not in self._known:
            self._keep(orbit, score_orbit(load_orbit(self._place / orbit)), read=False)
        scores, was_read = self._known[key]
        if read and not was_read:
            self._reader = self._reader or TextReader()
            words = self._reader.words(load_orbit(self._place / orbit))
            self._keep(orbit, replace(scores, words=words), read=True)
        return self._known[key][0]

    def _keep(self, orbit: str, scores: Scores, *, read: bool) -> None:
        rendered_at = self._rendered_at(orbit)
        self._known[_key(orbit, rendered_at)] = scores, read
        numbers: dict[str, Any] = asdict(scores) | {"look": [float(value) for value in scores.look]}
        line = {"orbit": orbit, "rendered_at": rendered_at, "read": read, "scores": numbers}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _rendered_at(self, orbit: str) -> float:
        return (self._place / orbit / "transforms.json").stat().st_mtime


def _key(orbit: str, rendered_at: float) -> str:
    return f"{orbit} {rendered_at}"

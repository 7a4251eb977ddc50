"""Where the page keeps what it is given and what it makes: a folder per visitor, and in it one per result.

A visitor is known by a secret name, which the browser keeps; whoever does not know it finds nothing of him. A result is
finished when its orbit folder is there: that is whole or absent, so what a restart finds is what was finished.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.options import PromptOptions
from mv3d.orbit import is_made
from mv3d.prompt import Prompt

VISITOR_COOKIE = "mv3d_visitor"
MASK = "mask.png"
_PROMPT = "prompt.json"
_VISITOR = re.compile(r"[0-9a-f]{32}")
_RESULT = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_UNSAFE = re.compile(r"[^\w.() -]+")
_LONGEST_NAME = 60
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class PageResult:
    """One picture and what is made of it."""

    folder: Path

    @property
    def name(self) -> str:
        """What it is called among the visitor's."""
        return self.folder.name

    @property
    def picture(self) -> Path:
        """The picture, by the name that it came with, its bytes as they came; one of words may not be there yet."""
        place, prompt = self.folder / "picture", self.prompt
        if prompt is not None:
            return place / f"{prompt.name}.png"
        return next(path for path in sorted(place.iterdir()) if path.is_file())

    @property
    def prompt(self) -> Prompt | None:
        """The words that it began with, if there was no picture."""
        path = self.folder / _PROMPT
        if not path.exists():
            return None
        known = json.loads(path.read_text(encoding="utf-8"))
        return Prompt(**known | {"options": PromptOptions(**known["options"])})

    @property
    def mask(self) -> Path | None:
        """Where the object is, by the visitor's hand, if he said so."""
        path = self.folder / MASK
        return path if path.exists() else None

    @property
    def orbit(self) -> Path:
        """The orbit folder, or the clip's."""
        return self.folder / "orbit"

    @property
    def mesh(self) -> Path | None:
        """The mesh, if there is one yet."""
        path = self.orbit / "mesh.glb"
        return path if path.exists() else None

    @property
    def is_finished(self) -> bool:
        """Whether there is an orbit, or a clip."""
        return is_made(self.orbit)


@dataclass(frozen=True)
class Visitor:
    """Somebody with a browser, and his results."""

    folder: Path

    @property
    def name(self) -> str:
        """The secret by which he is known."""
        return self.folder.name

    def add(self, picture: Path, called: str) -> PageResult:
        """Begin a result with a copy of a picture file, which keeps the name it is ``called``."""
        result = self._begin()
        shutil.copyfile(picture, result.folder / "picture" / _safe_name(called))
        return result

    def add_words(self, prompt: Prompt) -> PageResult:
        """Begin a result with words, of which its picture is to be made."""
        result = self._begin()
        (result.folder / _PROMPT).write_text(json.dumps(asdict(prompt)), encoding="utf-8")
        return result

    def _begin(self) -> PageResult:
        result = PageResult(self.folder / (time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)))
        (result.folder / "picture").mkdir(parents=True)
        return result

    def again(self, result: PageResult) -> PageResult:
        """Begin another result of the same picture, cut out in the same way."""
        added = self._begin()
        if result.picture.exists():
            shutil.copyfile(result.picture, added.folder / "picture" / result.picture.name)
        for name in (MASK, _PROMPT):
            if (result.folder / name).exists():
                shutil.copyfile(result.folder / name, added.folder / name)
        return added

    def find(self, name: str) -> PageResult:
        """The result of that name.

        Raises:
            Mv3dError: if he has none.
        """
        result = PageResult(self.folder / name)
        if not _RESULT.fullmatch(name) or not result.folder.is_dir():
            raise Mv3dError(f"there is no result {name[:_LONGEST_NAME]} here; make it again")
        return result

    def finished(self) -> list[PageResult]:
        """His finished results, the latest first."""
        if not self.folder.is_dir():
            return []
        found = [PageResult(path) for path in self.folder.iterdir() if _RESULT.fullmatch(path.name)]
        return sorted((one for one in found if one.is_finished), key=lambda one: one.name, reverse=True)


@dataclass(frozen=True)
class Results:
    """The results of all visitors, below one folder."""

    root: Path

    def visitor(self, name: str | None) -> Visitor:
        """Who has that secret name, or somebody new if it is none."""
        known = name if isinstance(name, str) and _VISITOR.fullmatch(name) else secrets.token_hex(16)
        return Visitor(self.root / known)

    def tidy(self) -> None:
        """Delete what was begun more than a day ago and never finished."""
        for folder in self.root.glob("*/*"):
            is_old = time.time() - folder.stat().st_mtime > _DAY_SECONDS
            if is_old and _RESULT.fullmatch(folder.name) and not PageResult(folder).is_finished:
                shutil.rmtree(folder, ignore_errors=True)


def _safe_name(called: str) -> str:
    """A file's name without folders, odd characters or a leading dot or dash, and not too long."""
    path = Path(_UNSAFE.sub("_", called.replace("\\", "/").rsplit("/", 1)[-1]).strip(" .-"))
    stem = path.stem.strip(" .-")[: _LONGEST_NAME - 10]
    return f"{stem or 'picture'}{path.suffix.strip()[:10]}"

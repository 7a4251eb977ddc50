"""Objaverse (Deitke et al. 2022): objects of Sketchfab, in the layout of ``~/.objaverse`` as its own package keeps it.

``object-paths.json.gz`` maps uids to ``glbs/000-023/<uid>.glb``; ``metadata/000-023.json.gz`` holds the annotations of
that folder; ``lvis-annotations.json.gz`` maps LVIS categories to uids. What is missing is downloaded, see `hub`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.sources.base import SourceObject
from render.sources.hub import fetch, read_json
from render.sources.meshes import MeshFile

if TYPE_CHECKING:
    import trimesh

PREFIX = "objaverse:"
_ROOT = Path.home() / ".objaverse" / "hf-objaverse-v1"
_LICENCES = {"by": "CC-BY-4.0", "cc0": "CC0-1.0", "by-sa": "CC-BY-SA-4.0", "by-nd": "CC-BY-ND-4.0"} | {
    f"by-nc{more}": f"CC-BY-NC{more.upper()}-4.0" for more in ("", "-sa", "-nd")
}
_KEYS = ("uids", "lvis", "words", "licence", "root")


@dataclass(frozen=True, kw_only=True)
class ObjaverseObject(MeshFile):
    """An object, downloaded when it is needed."""

    root: Path

    def load(self) -> trimesh.Scene:
        """Load the object; the download is kept.

        Raises:
            Unusable: if it cannot be had.
        """
        try:
            fetch(self.root, self.path.relative_to(self.root).as_posix())
        except Mv3dError as error:
            raise Unusable(str(error)) from None
        return super().load()


def select_objects(query: str) -> list[SourceObject]:
    """List objects by a query like ``objaverse:lvis=mug,teapot`` or ``objaverse:words=wooden chair&licence=by,by-sa``.

    Its parts: ``uids`` (with commas between, or a file with one a line), ``lvis`` (categories), ``words`` (all of them
    in the name or the tags), ``licence`` (``by,cc0`` if not given; ``any``), ``root`` (another folder than
    ``~/.objaverse/hf-objaverse-v1``). Several parts must all hold.

    Raises:
        Mv3dError: if the query is none, its files cannot be had, or nothing matches.
    """
    given = dict(parse_qsl(query.removeprefix(PREFIX), keep_blank_values=True))
    unknown = [key for key in given if key not in _KEYS]
    if unknown or not given.keys() & {"uids", "lvis", "words"}:
        raise Mv3dError(f"{query}: give uids=, lvis= or words=, and if you like licence= and root=, joined by &")
    root = Path(given.get("root", _ROOT)).expanduser().resolve()
    licences = [part for part in given.get("licence", "by,cc0").split(",") if part]
    paths: dict[str, str] = read_json(root, "object-paths.json.gz")
    wanted, category = list(paths), {}
    if "lvis" in given:
        lvis: dict[str, list[str]] = read_json(root, "lvis-annotations.json.gz")
        named = {name.lower(): name for name in lvis}
        for part in (part.strip().lower() for part in given["lvis"].split(",")):
            if part not in named:
                raise Mv3dError(f"Objaverse has no LVIS category {part}; there are {', '.join(sorted(lvis)[:8])} ...")
            category |= dict.fromkeys(lvis[named[part]], named[part])
        wanted = [uid for uid in wanted if uid in category]
    if "uids" in given:
        chosen = set(_uids(given["uids"]))
        wanted = [uid for uid in wanted if uid in chosen]
    words = given.get("words", "").lower().split()
    objects: list[SourceObject] = []
    for uid, facts in _annotations(root, paths, wanted):
        licence = facts.get("license")
        tags = " ".join(tag.get("name", "") for tag in facts.get("tags") or [])
        name = str(facts.get("name") or uid)
        if "any" not in licences and licence not in licences:
            continue
        if not all(word in f"{name} {tags}".lower() for word in words):
            continue
        objects.append(
            ObjaverseObject(
                object_id=f"objaverse/{uid}",
                name=name,
                category=category.get(uid) or next((c["name"] for c in facts.get("categories") or []), None),
                licence=_LICENCES.get(str(licence), licence),
                attribution=f"{name} by {(facts.get('user') or {}).get('displayName', 'unknown')} "
                f"({facts.get('viewerUrl') or 'sketchfab.com'})",
                path=root / paths[uid],
                root=root,
            )
        )
    if not objects:
        raise Mv3dError(f"{query} matches no object with licence {' or '.join(licences)}")
    return objects


def _annotations(root: Path, paths: dict[str, str], uids: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    folders: dict[str, list[str]] = {}
    for uid in uids:
        folders.setdefault(paths[uid].split("/")[1], []).append(uid)
    for folder in sorted(folders):
        known = read_json(root, f"metadata/{folder}.json.gz")
        yield from ((uid, known[uid]) for uid in sorted(folders[folder]) if uid in known)


def _uids(text: str) -> list[str]:
    path = Path(text).expanduser()
    return path.read_text().split() if path.is_file() else [part.strip() for part in text.split(",")]

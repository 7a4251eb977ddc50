"""Objaverse (Deitke et al. 2022): objects of Sketchfab, by uids, LVIS categories, or words in names and tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.sources.base import SourceObject
from render.sources.meshes import MeshFile
from render.sources.objaverse_package import Objaverse

if TYPE_CHECKING:
    import trimesh

PREFIX = "objaverse:"
_LICENCES = {"by": "CC-BY-4.0", "cc0": "CC0-1.0", "by-sa": "CC-BY-SA-4.0", "by-nd": "CC-BY-ND-4.0"} | {
    f"by-nc{more}": f"CC-BY-NC{more.upper()}-4.0" for more in ("", "-sa", "-nd")
}
_KEYS = ("uids", "lvis", "words", "licence", "root")


@dataclass(frozen=True, kw_only=True)
class ObjaverseObject(MeshFile):
    """An object, downloaded when it is needed."""

    uid: str
    root: Path

    def load(self) -> trimesh.Scene:
        """Load the object; the download is kept.

        Raises:
            Unusable: if it cannot be had.
        """
        try:
            Objaverse(self.root).fetch(self.uid, self.path)
        except Mv3dError as error:
            raise Unusable(str(error)) from None
        return super().load()


def select_objects(query: str) -> list[SourceObject]:
    """List objects by a query like ``objaverse:lvis=mug,teapot`` or ``objaverse:words=wooden chair&licence=by,by-sa``.

    Its parts: ``uids`` (with commas between, or a file with one a line), ``lvis`` (categories), ``words`` (all of them
    in the name or the tags), ``licence`` (``by,cc0`` if not given; ``any``), ``root`` (another folder than
    ``~/.objaverse/hf-objaverse-v1``). Several parts must all hold.

    Raises:
        Mv3dError: if the query is none, the package ``objaverse`` is not installed, its files cannot be had, or nothing
            matches.
    """
    given = dict(parse_qsl(query.removeprefix(PREFIX), keep_blank_values=True))
    unknown = [key for key in given if key not in _KEYS]
    if unknown or not given.keys() & {"uids", "lvis", "words"}:
        raise Mv3dError(f"{query}: give uids=, lvis= or words=, and if you like licence= and root=, joined by &")
    objaverse = Objaverse(Path(given["root"]) if "root" in given else None)
    licences = [part for part in given.get("licence", "by,cc0").split(",") if part]
    wanted, category = objaverse.paths(), {}
    if "lvis" in given:
        category = objaverse.categories(part.strip().lower() for part in given["lvis"].split(","))
        wanted = {uid: path for uid, path in wanted.items() if uid in category}
    if "uids" in given:
        chosen = set(_uids(given["uids"]))
        wanted = {uid: path for uid, path in wanted.items() if uid in chosen}
    words = given.get("words", "").lower().split()
    objects: list[SourceObject] = []
    for uid, facts in objaverse.annotations(wanted):
        licence, name = facts.get("license"), str(facts.get("name") or uid)
        said = " ".join((name, *(tag.get("name", "") for tag in facts.get("tags") or []))).lower()
        if not ("any" in licences or licence in licences) or not all(word in said for word in words):
            continue
        objects.append(
            ObjaverseObject(
                object_id=f"objaverse/{uid}",
                name=name,
                category=category.get(uid) or next((c["name"] for c in facts.get("categories") or []), None),
                licence=_LICENCES.get(str(licence), licence),
                attribution=f"{name} by {(facts.get('user') or {}).get('displayName', 'unknown')} "
                f"({facts.get('viewerUrl') or 'sketchfab.com'})",
                path=wanted[uid],
                uid=uid,
                root=objaverse.root,
            )
        )
    if not objects:
        raise Mv3dError(f"{query} matches no object with licence {' or '.join(licences)}")
    return objects


def _uids(text: str) -> list[str]:
    path = Path(text).expanduser()
    return path.read_text().split() if path.is_file() else [part.strip() for part in text.split(",")]

"""Protocols as data: what has to be the same before two numbers may stand in one table.

A protocol is a file ``configs/protocols/NAME.yaml``. Each of its settings says what its source states, where it states
it, and what a run here uses. What a source does not state is written ``unknown``: it is never guessed, and a run then
says which choice is its own.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from eval.options import Alignment, SsimWindow
from mv3d.errors import Mv3dError

PROTOCOLS_FOLDER = Path(__file__).parents[1] / "configs" / "protocols"
UNKNOWN = "unknown"


class RunSettings(BaseModel):
    """What a run here uses: the values of a protocol's settings."""

    model_config = ConfigDict(strict=True, frozen=True)

    objects: str
    num_objects: int
    split: str | None
    path: Literal["static", "dynamic", "random"]
    num_views: int
    scored_views: Literal["all"] | list[int]
    elevation_deg: float | list[float]
    azimuths_deg: Literal["even", "random"] | list[float]
    resolution_px: int
    fov_deg: float
    distance: str
    background: Literal["white", "black", "grey"]
    input_view: Literal["first", "last"]
    input_counts: bool
    psnr: Literal["float", "uint8"]
    ssim: SsimWindow
    lpips: list[str]
    clip: str
    silhouette: str
    alignment: Alignment
    geometry: str
    averaging: str


BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class Setting:
    """One setting: what the source states (None: nothing), what a run here uses, and where that is written."""

    stated: Any
    here: Any
    source: str

    @property
    def is_ours(self) -> bool:
        """Whether a run's value is a choice of ours and not the source's."""
        return self.stated is None or self.stated != self.here


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table, as printed there; None where the table has no number."""

    method: str
    values: dict[str, float]
    where: str
    note: str | None = None


@dataclass(frozen=True)
class Protocol:
    """A protocol: its settings by name, and the rows that others published under it."""

    name: str
    title: str
    citation: str
    settings: dict[str, Setting]
    here: RunSettings
    """The settings' values in a run here."""
    published: tuple[PublishedRow, ...] = ()

    @property
    def background(self) -> tuple[float, float, float]:
        """The colour that both sides are composited on."""
        return BACKGROUNDS[self.here.background]

    def scored_indices(self) -> tuple[int, ...]:
        """The views that count, the input view not yet taken out."""
        scored = self.here.scored_views
        return tuple(range(self.here.num_views)) if scored == "all" else tuple(scored)

    def fingerprint(self) -> str:
        """Eight hex digits of what a run here uses: runs of equal ones may stand in one table."""
        used = {name: setting.here for name, setting in self.settings.items()}
        return hashlib.sha256(json.dumps([self.name, used], sort_keys=True).encode()).hexdigest()[:8]

    def described(self) -> list[dict[str, Any]]:
        """The settings for a reader: name, stated, here, source."""
        return [
            {"setting": name, "stated": UNKNOWN if s.stated is None else s.stated, "here": s.here, "source": s.source}
            for name, s in self.settings.items()
        ]


def list_protocols() -> list[str]:
    """The names that `load_protocol` knows."""
    return sorted(path.stem for path in PROTOCOLS_FOLDER.glob("*.yaml"))


def load_protocol(name_or_file: str) -> Protocol:
    """Read a protocol by name, or from a YAML file of one's own.

    Raises:
        Mv3dError: if there is none by that name, or a setting is missing, unknown or of another kind.
    """
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = PROTOCOLS_FOLDER / f"{name_or_file}.yaml"
        if not path.is_file():
            known = list_protocols()
            close = difflib.get_close_matches(name_or_file, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}, or give a .yaml file"
            raise Mv3dError(f"there is no protocol {name_or_file}; {hint}")
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Mv3dError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    return _parse(tree, path)


def _parse(tree: Any, path: Path) -> Protocol:
    if not isinstance(tree, dict) or not isinstance(tree.get("settings"), dict):
        raise Mv3dError(f"{path} is no protocol: it has no settings")
    _check_keys(tree, ("title", "citation", "settings"), ("published",), f"{path}")
    names = tuple(RunSettings.model_fields)
    _check_keys(tree["settings"], names, (), f"{path}: settings")
    settings = {name: _parse_setting(name, tree["settings"][name], path) for name in names}
    here = _parse_here(settings, path)
    rows = []
    for table in tree.get("published", []):
        _check_keys(table, ("where", "rows"), ("note",), f"{path}: published")
        for method, values in table["rows"].items():
            numbers = all(isinstance(value, (int, float)) for value in values.values())
            if not numbers:
                raise Mv3dError(f"{path}: published: {method} holds something else than numbers")
            rows.append(PublishedRow(method, values, table["where"], table.get("note")))
    return Protocol(path.stem, tree["title"], tree["citation"], settings, here, tuple(rows))


def _check_keys(tree: dict, required: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    for key in tree:
        if key not in (*required, *optional):
            close = difflib.get_close_matches(str(key), (*required, *optional), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join((*required, *optional))}"
            raise Mv3dError(f"{where}: unknown key {key!r}{hint}")
    missing = [key for key in required if key not in tree]
    if missing:
        raise Mv3dError(f"{where}: missing {', '.join(missing)}; write 'unknown' where the source does not say")


def _parse_setting(name: str, tree: Any, path: Path) -> Setting:
    where = f"{path}: {name}"
    if not isinstance(tree, dict):
        raise Mv3dError(f"{where} must hold stated and source, got {tree!r}")
    _check_keys(tree, ("stated", "source"), ("here",), where)
    stated = None if tree["stated"] == UNKNOWN else tree["stated"]
    if tree["stated"] == UNKNOWN and "here" not in tree:
        raise Mv3dError(f"{where} is unknown, so 'here' must say what a run uses")
    return Setting(stated, tree.get("here", stated), tree["source"])


def _parse_here(settings: dict[str, Setting], path: Path) -> RunSettings:
    try:
        here = RunSettings.model_validate({name: setting.here for name, setting in settings.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Mv3dError(f"{path}: {first['loc'][0]}: {first['input']!r}: {first['msg']}") from None
    scored, azimuths_deg = here.scored_views, here.azimuths_deg
    if isinstance(scored, list) and not all(0 <= k < here.num_views for k in scored):
        raise Mv3dError(f"{path}: scored_views must be 'all' or indices below num_views {here.num_views}, got {scored}")
    if isinstance(azimuths_deg, list) and here.path != "static":
        raise Mv3dError(f"{path}: a list of azimuths_deg goes with a static path only, got {here.path}")
    if isinstance(azimuths_deg, list) and len(azimuths_deg) != here.num_views:
        raise Mv3dError(f"{path}: {len(azimuths_deg)} azimuths_deg for {here.num_views} views")
    return here

"""Which rendered objects to train on: rules with thresholds, two sets of them, and what each rule dropped."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from mv3d.dataset import Entry, orbit_folders, read_manifest
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.orbit import load_orbit
from render.curation.score_cache import Scorebook
from render.curation.scores import Scores
from render.curation.text import text_share
from render.sheet import save_objects_sheet

STAGES = ("broad", "fine")
OWN = "own"
_MORE = {"nc", "nd", "sa", "noncommercial", "noderivatives", "noderivs", "sharealike"}


@dataclass(frozen=True)
class Rules:
    """Thresholds of one set; configs/curation.yaml says what each means."""

    licences: tuple[str, ...]
    smallest_silhouette: float
    least_colour: float
    least_contrast: float
    thinnest: float
    flattest: float
    largest_piece: float
    most_triangles: int
    most_lacking_files: int
    most_text: float
    least_text_confidence: float
    most_alike: float
    words: tuple[str, ...]

    def fault(self, entry: Entry, scores: Scores) -> str | None:
        """The first rule that drops an object, with its number; copies are not looked for here."""
        words = set(re.findall(r"[a-z]+", entry.name.lower()))
        text = text_share(scores.words, self.least_text_confidence)
        checks = (
            (bool(self.licences) and not self._allows(entry.licence), f"licence {entry.licence}"),
            (scores.silhouette < self.smallest_silhouette, f"silhouette {scores.silhouette:.3f}"),
            (
                scores.colour < self.least_colour and scores.contrast < self.least_contrast,
                f"single colour {scores.colour:.3f}, contrast {scores.contrast:.3f}",
            ),
            (scores.thinness < self.thinnest, f"card {scores.thinness:.2f}"),
            (scores.flatness < self.flattest, f"rug {scores.flatness:.2f}"),
            (scores.largest_piece < self.largest_piece, f"scattered {scores.largest_piece:.2f}"),
            (scores.triangles > self.most_triangles, f"triangles {scores.triangles}"),
            (scores.lacking_files > self.most_lacking_files, f"lacking {scores.lacking_files} files"),
            (text > self.most_text, f"text {text:.3f} {' '.join(word.text for word in scores.words)}"),
            (bool(words & set(self.words)), f"word {' '.join(sorted(words & set(self.words)))}"),
        )
        return next((reason for dropped, reason in checks if dropped), None)

    def _allows(self, licence: str | None) -> bool:
        """Whether a name is one of the allowed ones, followed by nothing but a version or words about it.

        An object that nobody tells a licence of, as the user's meshes, is `OWN`.
        """
        if licence is None:
            return OWN in self.licences
        plain = re.sub(r"[^a-z0-9]+", " ", licence.lower()).strip()
        for name in (name for name in self.licences if name != OWN):
            start = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
            rest = plain[len(start) :].split()
            if plain.startswith(start) and not _MORE & set(rest):
                return True
        return False


def curate(place: Path, rules_path: Path) -> Iterator[str]:
    """Score every object's first orbit; write ``curation.jsonl``, a list of names and sheets for each set.

    Yields lines for people: what each rule dropped.

    Raises:
        Mv3dError: if there is no rendered object, or the rules are not as they should be.
    """
    rules = load_rules(rules_path)
    entries = [entry for entry in read_manifest(place).values() if entry.orbits]
    if not entries:
        raise Mv3dError(f"{place} holds no rendered object")
    scores = _score(place, entries, rules)
    faults: dict[str, dict[str, str | None]] = {}
    for stage in STAGES:
        found = {entry.object_id: rules[stage].fault(entry, scores[entry.object_id]) for entry in entries}
        faults[stage] = found | _copies(found, scores, rules[stage].most_alike)
        dropped = Counter(str(fault).split()[0] for fault in faults[stage].values() if fault is not None)
        kept = [name for name, fault in faults[stage].items() if fault is None]
        yield f"{stage}: {len(kept)} of {len(entries)} objects"
        yield from (f"  {count} dropped: {rule}" for rule, count in dropped.most_common())
        with whole_file(place / f"{stage}.txt") as partial:
            partial.write_text("".join(f"{name}\n" for name in kept))
        for label, names in (("kept", kept), ("dropped", [name for name in faults[stage] if name not in set(kept)])):
            if names:
                orbits = ((f"{name}/0", load_orbit(orbit_folders(place / name)[0])) for name in names[:200])
                save_objects_sheet(orbits, place / f"{stage}-{label}.png")
    with whole_file(place / "curation.jsonl") as partial:
        lines = (
            {k: v for k, v in asdict(scores[e.object_id]).items() if k != "look"}
            | {"object_id": e.object_id}
            | {stage: faults[stage][e.object_id] for stage in STAGES}
            for e in entries
        )
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines))


def load_rules(path: Path) -> dict[str, Rules]:
    """Read the thresholds of both sets.

    Raises:
        Mv3dError: if a set or a threshold is missing, or one is not known.
    """
    import yaml

    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Mv3dError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict) or set(given) != set(STAGES):
        raise Mv3dError(f"{path} must have the sets {' and '.join(STAGES)}")
    known = [field.name for field in fields(Rules)]
    rules = {}
    for stage, values in given.items():
        for key in values:
            if key not in known:
                close = get_close_matches(key, known, 1)
                raise Mv3dError(f"{path}: {stage}.{key} is no threshold" + (f"; {close[0]}?" if close else ""))
        if missing := [key for key in known if key not in values]:
            raise Mv3dError(f"{path}: {stage} has no {missing[0]}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        rules[stage] = Rules(**plain)
    return rules


def _copies(faults: dict[str, str | None], scores: dict[str, Scores], most_alike: float) -> dict[str, str]:
    """Objects that look like an earlier one that is kept."""
    kept: list[str] = []
    looks = np.zeros((len(faults), len(next(iter(scores.values())).look)), np.float32)
    found = {}
    for name, fault in faults.items():
        if fault is not None:
            continue
        distance = np.abs(looks[: len(kept)] - scores[name].look).sum(axis=-1)
        if len(kept) and distance.min() < most_alike:
            found[name] = f"copy of {kept[int(distance.argmin())]}"
        else:
            looks[len(kept)] = scores[name].look
            kept.append(name)
    return found


def _score(place: Path, entries: Sequence[Entry], rules: dict[str, Rules]) -> dict[str, Scores]:
    """Measure all; reading takes most of the time, so only what would be kept otherwise is read."""
    from tqdm import tqdm

    book = Scorebook(place)
    scores = {}
    for entry in tqdm(entries, unit="object", smoothing=0.05):
        orbit = orbit_folders(place / entry.object_id)[0].relative_to(place).as_posix()
        measured = replace(book.scores(orbit), words=())
        read = any(each.most_text < 1 and each.fault(entry, measured) is None for each in rules.values())
        scores[entry.object_id] = book.scores(orbit, read=True) if read else measured
    return scores

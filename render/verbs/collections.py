"""``python -m render sheet``, ``pack`` and ``curate``: what works on rendered orbits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError


@dataclass(frozen=True)
class SheetVerb:
    """Draw a contact sheet of rendered objects."""

    place: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Rendered orbits, or shards of them."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = Path("sheet.png")
    """The picture."""
    most: int = 200
    """Objects on it."""
    verbose: Verbose = False

    def run(self) -> int:
        """Draw it; returns the exit code."""
        from render.collection import iter_orbits
        from render.sheet import save_objects_sheet

        count = save_objects_sheet(iter_orbits(self.place), self.out, most=self.most)
        print(f"{self.out}: {count} objects")
        return 0


@dataclass(frozen=True)
class PackVerb:
    """Put rendered orbits into tar shards as WebDataset reads them."""

    place: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Rendered orbits."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Where the shards go."""
    per_shard: int = 500
    """Orbits in each."""
    verbose: Verbose = False

    def run(self) -> int:
        """Pack them; returns the exit code."""
        from render.collection import pack

        if self.per_shard < 1:
            raise Mv3dError(f"{self.per_shard} orbits in a shard: give 1 or more", argument="per_shard")
        for path in pack(self.place, self.out, per_shard=self.per_shard):
            print(path)
        return 0


@dataclass(frozen=True)
class CurateVerb:
    """Score rendered objects and say which to train on."""

    place: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Rendered orbits."""
    rules: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("configs/curation.yaml")
    """Thresholds."""
    verbose: Verbose = False

    def run(self) -> int:
        """Score and sort them; returns the exit code."""
        from render.curation.curation import curate

        for line in curate(self.place, self.rules):
            print(line)
        return 0

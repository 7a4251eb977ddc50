"""``mv3d export``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.options import ExportFormat


@dataclass(frozen=True)
class ExportVerb:
    """Write an orbit or a mesh in another format: for Blender, USD, nerfstudio, instant-ngp, COLMAP, PyTorch3D."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """An orbit folder, with its mesh.glb where there is one, or a mesh file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="TARGET")]
    """What to write; its suffix says the format: .glb .obj .ply .stl .usd .usda .usdc .usdz .blend .json .npz."""
    format: ExportFormat | None = None
    """The format, where TARGET's suffix does not say it: datasets are folders."""
    overwrite: bool = False
    """Replace TARGET, and the files that its format puts beside it, if they exist."""
    json: bool = False
    """Print one line of JSON."""
    verbose: Verbose = False

    def run(self) -> int:
        """Export; returns the exit code."""
        from mv3d.export import export_source

        started = time.perf_counter()
        name = export_source(self.source, self.out, self.format, overwrite=self.overwrite)
        seconds = round(time.perf_counter() - started, 2)
        if self.json:
            facts = {"source": str(self.source), "out": str(self.out), "format": name, "seconds": seconds}
            print(json.dumps(facts))
        else:
            print(f"{self.out}: {name} in {seconds:.1f} s")
        return 0

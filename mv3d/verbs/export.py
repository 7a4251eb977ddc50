"""``mv3d export``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError
from mv3d.options import ExportFormat

if TYPE_CHECKING:
    from mv3d.export import PrintFacts


@dataclass(frozen=True)
class ExportVerb:
    """Write an orbit or a mesh in another format: for Blender, USD, nerfstudio, instant-ngp, COLMAP, PyTorch3D."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """An orbit folder, with its mesh.glb where there is one, or a mesh file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="TARGET")]
    """What to write; its suffix says the format: .glb .obj .ply .stl .3mf .usd .usda .usdc .usdz .blend .json .npz."""
    format: ExportFormat | None = None
    """The format, where TARGET's suffix does not say it: datasets are folders."""
    size_mm: float | None = None
    """Make a print of it, .stl or .3mf: one closed body, so many millimetres along its longest side."""
    flat_base: bool = False
    """Cut a little off the bottom of the print, so that it stands."""
    overwrite: bool = False
    """Replace TARGET, and the files that its format puts beside it, if they exist."""
    json: bool = False
    """Print one line of JSON."""
    verbose: Verbose = False

    def run(self) -> int:
        """Export; returns the exit code."""
        from mv3d.export import PrintSettings, export_source

        if self.flat_base and self.size_mm is None:
            raise Mv3dError("a flat base is for a print; say how large that is", argument="size_mm")
        printing = None if self.size_mm is None else PrintSettings(self.size_mm, self.flat_base)
        started = time.perf_counter()
        done = export_source(self.source, self.out, self.format, overwrite=self.overwrite, printing=printing)
        seconds = round(time.perf_counter() - started, 2)
        if self.json:
            facts = {"source": str(self.source), "out": str(self.out), "format": done.format, "seconds": seconds}
            print(json.dumps(facts if done.printed is None else facts | {"print": asdict(done.printed)}))
        else:
            print(f"{self.out}: {done.format} in {seconds:.1f} s")
            if done.printed is not None:
                print(_as_text(done.printed))
        return 0


def _as_text(print_facts: PrintFacts) -> str:
    width, depth, height = print_facts.size_mm
    said = [
        f"{print_facts.bodies} {'closed' if print_facts.watertight else 'open'} "
        f"{'body' if print_facts.bodies == 1 else 'bodies'}",
        f"{width:.1f} x {depth:.1f} x {height:.1f} mm",
        f"walls from {print_facts.wall_mm:.2f} mm "
        f"({print_facts.wall_percentile} % of the surface is over thinner ones)",
    ]
    if print_facts.base_cut_mm:
        said.append(f"{print_facts.base_cut_mm:.1f} mm cut off the bottom")
    if print_facts.left_out_bodies:
        said.append(
            f"{print_facts.left_out_bodies} loose ({print_facts.left_out_percent:.1f} % of the volume) left out"
        )
    return ", ".join(said)

"""``mv3d lift``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError
from mv3d.options import Device
from mv3d.progress import StageBar

if TYPE_CHECKING:
    from mv3d.orbit import Orbit

Method = Literal["field", "hull", "nerfstudio", "splats"]

_USUAL_SECONDS = {"loading": 5.0, "surface": 25.0, "texture": 6.0}  # of two cores; a hull takes less


@dataclass(frozen=True)
class LiftVerb:
    """Lift the views of an orbit folder to a textured mesh."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """An orbit folder, or any folder of cut-out views with a transforms.json (nerfstudio, instant-ngp)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="MESH")]
    """The mesh file; its suffix says the format: .glb, .obj, .ply, .stl, .usdz. For splats a .ply."""
    method: Method = "field"
    """A surface fitted to colours and silhouettes (field), to silhouettes alone (hull: hollows stay filled), by
    nerfstudio's commands where they are installed, or Gaussian splats where gsplat and CUDA are."""
    preview: bool = False
    """A coarse mesh in seconds."""
    faces: int = 30_000
    """Triangles at most."""
    texture_size: int = 1024
    """Pixels of the texture's sides."""
    delight: bool = False
    """Take light and shade out of the texture, as far as they follow from how the surface is turned."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace the file, and those that its format puts beside it, if they exist."""
    json: bool = False
    """Print one line of JSON."""
    verbose: Verbose = False

    def run(self) -> int:
        """Lift the orbit; returns the exit code."""
        with StageBar(_USUAL_SECONDS, quiet=self.json) as bar:
            bar.update(self.folder.name, "loading")
            return self._lift(bar)

    def _lift(self, bar: StageBar) -> int:
        from mv3d.export import check_all_free
        from mv3d.orbit import load_orbit

        check_all_free(self.out, overwrite=self.overwrite)
        if self.preview and self.method not in ("field", "hull"):
            raise Mv3dError(
                f"a preview is quick by a coarse hull, not by {self.method}; leave one of them out", argument="preview"
            )
        orbit = load_orbit(self.folder)
        started = time.perf_counter()
        if self.method == "splats":
            bar.update(self.folder.name, "surface")
            facts = {"splats": self._fit_splats(orbit)}
        else:
            facts = {"faces": self._lift_mesh(orbit, self.method, bar)}
        bar.end()
        seconds = round(time.perf_counter() - started, 2)
        if self.json:
            print(json.dumps({"orbit": str(self.folder), "mesh": str(self.out), **facts, "seconds": seconds}))
        else:
            print(f"{self.out}: {' '.join(f'{count} {name}' for name, count in facts.items())} in {seconds:.1f} s")
        return 0

    def _fit_splats(self, orbit: Orbit) -> int:
        """Fit and save; returns the number of splats."""
        from mv3d.lift.splats import fit_splats

        if self.out.suffix.lower() != ".ply":
            raise Mv3dError(f"{self.out.name}: splats are written as .ply")
        return fit_splats(orbit, self.out)

    def _lift_mesh(self, orbit: Orbit, method: Literal["field", "hull", "nerfstudio"], bar: StageBar) -> int:
        """Lift and save; returns the number of faces."""
        from mv3d.export import check_format, save_mesh

        check_format(self.out)
        from mv3d.device import pick_device
        from mv3d.lift import LiftSettings, lift_orbit

        settings = LiftSettings(
            method="hull" if method == "hull" else "field",
            faces=self.faces,
            texture_px=self.texture_size,
            delight=self.delight,
            device=pick_device(self.device, sparse=True),
        )
        if method == "nerfstudio":
            from mv3d.lift.nerfstudio import lift_with_nerfstudio

            bar.update(self.folder.name, "surface")
            mesh = lift_with_nerfstudio(orbit, settings=settings)
        else:
            chosen = settings.preview() if self.preview else settings
            mesh = lift_orbit(orbit, chosen, lambda *step: bar.update(self.folder.name, *step))
        save_mesh(mesh, self.out)
        return len(mesh.faces)

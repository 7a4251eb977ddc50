"""What can be asked of ``mv3d orbit`` and ``export``; imports nothing heavy, because it is in their help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from mv3d.model_options import ModelOptions

Device = Literal["auto", "cpu", "cuda", "mps"]
Matte = Literal["auto", "alpha", "plain", "u2net"]
ExportFormat = Literal[
    "glb", "obj", "ply", "stl", "3mf", "usd", "usdz", "blend", "nerfstudio", "instant-ngp", "colmap", "pytorch3d"
]


@dataclass(frozen=True)
class OrbitOptions:
    """How pictures become orbits. The docstrings are the command line's help."""

    num_views: int = 21
    """Views in one turn."""
    elevation: float | Literal["auto"] = "auto"
    """Degrees that the picture's camera looks down; auto: as the model estimates, or 10 if it cannot."""
    swing: float = 0.0
    """Degrees the camera rises and sinks in one turn, by a sine; for models trained so, as SV3D's (mini was not)."""
    preview: bool = False
    """Only the coarse stage: its surface drawn from all sides, in seconds."""
    steps: int | None = None
    """Sampling steps of the diffusion stage; the model's own number if not given."""
    guidance: float | None = None
    """How strongly the views follow the picture; the model's own value if not given."""
    decode_chunk: int | None = None
    """Frames of SVD's decoder on the device at a time, for small cards: slower, the same views; all if not given."""
    seed: int = 0
    """Draws the diffusion stage's noise: equal seeds give equal pixels."""
    model: str = "mini"
    """The bundled model (mini), a model folder, a .safetensors file of SV3D or SVD, or owner/name on the hub."""
    lora: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FILE[:SCALE]")] = ()
    """A LoRA for the model, 1 as trained and 0 not at all; several add up."""
    unfused: bool = False
    """Keep LoRAs as layers of their own, not added to the weights: slower, to compare with."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    kept: Annotated[ModelOptions, arg(name="")] = ModelOptions()
    mesh: bool = False
    """Make mesh.glb in the orbit folder too: the model's own surface in the views' colours, or the views lifted.

    An orbit that is there already and has none is lifted.
    """
    faces: int = 30_000
    """Triangles of the mesh at most."""
    texture_size: int = 1024
    """Pixels of the sides of the mesh's texture."""
    matte: Matte = "auto"
    """Where the object is: the picture's alpha, a plain background's colour, or what U2-Net finds."""
    mask: Path | None = None
    """Where the object is, by your own hand: a picture of the same size, white or opaque there and black or clear
    elsewhere."""
    keep_framing: bool = False
    """The picture is framed like a training view already (a frame of an orbit folder): do not move or scale it."""
    overwrite: bool = False
    """Replace orbit folders that exist."""

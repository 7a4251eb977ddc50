"""What can be asked of ``mv3d orbit`` and ``export``; imports nothing heavy, because it is in their help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from mv3d.model_options import ModelOptions

Device = Literal["auto", "cpu", "cuda", "mps"]
Matte = Literal["auto", "alpha", "plain", "u2net", "none"]
ExportFormat = Literal[
    "glb", "obj", "ply", "stl", "3mf", "usd", "usdz", "blend", "nerfstudio", "instant-ngp", "colmap", "pytorch3d"
]


@dataclass(frozen=True)
class PromptOptions:
    """What makes a picture of words. The docstrings are the command line's help."""

    text_model: Annotated[str, arg(metavar="MODEL")] = "stabilityai/stable-diffusion-xl-base-1.0"
    """What makes the picture of --prompt: any text-to-image model of diffusers, a folder or owner/name on the hub."""
    text_steps: int | None = None
    """Its sampling steps; its own number if not given."""
    text_guidance: float | None = None
    """How strongly its picture follows the words; its own value if not given."""


@dataclass(frozen=True)
class OrbitOptions:
    """How pictures become orbits. The docstrings are the command line's help."""

    path: Annotated[str, arg(metavar="NAME|FILE")] = "turn"
    """How the camera moves: turn, swing, spiral, top, zoom, dolly; or a file of key-frames, or a transforms.json."""
    num_views: int = 21
    """Views of the path; of a file as many as it has cameras, or its seconds and --fps need, unless given."""
    fps: float | None = None
    """Frames per second of the video; if not given, the views take 3 seconds, at 30 a second at most."""
    size: int | None = None
    """Pixels of the frames' longer side; the model's own if not given."""
    view: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FILE@AZIMUTH[,ELEVATION]")] = ()
    """Another picture of the object, and from how many degrees beside the first; several shape the surface together."""
    elevation: float | Literal["auto"] = "auto"
    """Degrees that the picture's camera looks down; auto: as the model estimates, or 10 if it cannot."""
    swing: float = 0.0
    """Degrees: in a turn, how far the camera rises and sinks; on path swing, how far it goes to each side (30)."""
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
    words: Annotated[PromptOptions, arg(name="")] = PromptOptions()
    mesh: bool = False
    """Make mesh.glb in the orbit folder too: the model's own surface in the views' colours, or the views lifted.

    An orbit that is there already and has none is lifted.
    """
    faces: int = 30_000
    """Triangles of the mesh at most."""
    texture_size: int = 1024
    """Pixels of the sides of the mesh's texture."""
    delight: bool = False
    """Take light and shade out of the mesh's texture, as far as they follow from how the surface is turned."""
    matte: Matte = "auto"
    """Where the object is: the picture's alpha, a plain background's colour, or what U²-Net finds; with none,
    everywhere: a painting becomes a relief, before which the camera swings."""
    mask: Path | None = None
    """Where the object is, by your own hand: a picture of the same size, white or opaque there and black or clear
    elsewhere."""
    keep_framing: bool = False
    """The picture is framed like a training view already (a frame of an orbit folder): do not move or scale it."""
    overwrite: bool = False
    """Replace orbit folders that exist."""

"""A framed picture becomes an orbit: coarse views first, then the video diffusion model (behind ``mv3d orbit``)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import mv3d
from mv3d.cameras import Camera, orbit_through, static_orbit
from mv3d.clip import Clip
from mv3d.errors import Mv3dError
from mv3d.mesh import Mesh
from mv3d.model.autoencoder import from_autoencoder, to_autoencoder
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.decoding import check_finite
from mv3d.model.pipeline import SampleSettings, is_camera_conditioned, make_conditions, sample_views
from mv3d.orbit import Facts, Frames, Orbit
from mv3d.progress import OnStep, begin_stage

MAX_VIEWS = 200
DEFAULT_ELEVATION_DEG = 10.0
MAX_ELEVATION_DEG = 80.0


@dataclass(frozen=True)
class GenerateSettings:
    """What can be asked of an orbit; None means the model's own default."""

    num_views: int = 21
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    """Of the picture's camera; the orbit keeps it unless ``elevations_deg`` says otherwise."""
    azimuths_deg: tuple[float, ...] | None = None
    """Of each view, the picture's own first, at 0; an even turn if None."""
    elevations_deg: tuple[float, ...] | None = None
    """Of each view, the picture's own first."""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    preview: bool = False
    decode_chunk: int | None = None
    """Frames on the device while decoding, see `mv3d.model.decoding.decode_clip`."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_views <= MAX_VIEWS:
            raise Mv3dError(f"num_views {self.num_views} is outside 1 to {MAX_VIEWS}", argument="num_views")
        if not abs(self.elevation_deg) <= MAX_ELEVATION_DEG:
            raise Mv3dError(
                f"elevation {self.elevation_deg:g} is outside +-{MAX_ELEVATION_DEG:g} degrees", argument="elevation"
            )
        for name in ("azimuths_deg", "elevations_deg"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_views:
                raise Mv3dError(f"{len(values)} {name} for {self.num_views} views; give one for each")
        if self.azimuths_deg is not None and self.azimuths_deg[0] % 360 != 0:
            raise Mv3dError(f"azimuths_deg begin at {self.azimuths_deg[0]:g}; the first view is the picture, at 0")
        for elevation_deg in self.elevations_deg or ():
            if not abs(elevation_deg) <= MAX_ELEVATION_DEG:
                raise Mv3dError(f"a view's elevation of {elevation_deg:g} is outside +-{MAX_ELEVATION_DEG:g} degrees")
        if self.elevations_deg is not None and abs(self.elevations_deg[0] - self.elevation_deg) > 1e-6:
            raise Mv3dError(
                f"elevations_deg begin at {self.elevations_deg[0]:g}, the picture's is {self.elevation_deg:g}"
            )
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise Mv3dError(f"steps {self.steps} are outside 1 to 1000", argument="steps")
        if self.decode_chunk is not None and self.decode_chunk < 1:
            raise Mv3dError(f"decode_chunk {self.decode_chunk}: give 1 frame or more", argument="decode_chunk")

    @property
    def sampling(self) -> SampleSettings:
        """What the diffusion stage needs to know."""
        return SampleSettings(self.num_views, self.steps, self.guidance, self.seed, self.decode_chunk)

    @property
    def is_level_turn(self) -> bool:
        """Whether all views stand evenly around at the picture's elevation, as models without poses make them."""
        return self.azimuths_deg is None and self.elevations_deg is None

    def cameras(self, size_px: int) -> tuple[Camera, ...]:
        """The cameras of the orbit."""
        even = static_orbit(self.num_views, self.elevation_deg, size_px=size_px)
        if self.is_level_turn:
            return even
        azimuths = self.azimuths_deg or [camera.azimuth_deg for camera in even]
        return orbit_through(azimuths, self.elevations_deg or [self.elevation_deg] * self.num_views, size_px=size_px)


@dataclass(frozen=True, eq=False)
class Generated:
    """What a model makes of a picture."""

    orbit: Orbit
    surface: Mesh | None
    """The object's closed surface in the orbit's world, without a texture; None of a model without a coarse stage."""


def generate_orbit(
    picture: Frames,
    model: OrbitModel,
    settings: GenerateSettings | None = None,
    on_step: OnStep | None = None,
) -> Orbit:
    """`generate`, of which the orbit alone is wanted."""
    return generate(picture, model, settings, on_step).orbit


@torch.no_grad()
def generate(
    picture: Frames,
    model: OrbitModel,
    settings: GenerateSettings | None = None,
    on_step: OnStep | None = None,
) -> Generated:
    """Turn the object of a framed picture once around, or show it from where ``settings`` say.

    Args:
        picture: (S, S, 4) RGBA of the model's ``output_px``, framed by `mv3d.image.frame_picture`.
        model: from `mv3d.model.checkpoints.load_model`.
        settings: what is wanted.
        on_step: called with the stage, coarse or views, its steps done and in all.

    Returns:
        The orbit, whose first view is the picture itself, and the surface behind it. Equal arguments on one machine
        give equal pixels.

    Raises:
        Mv3dError: for a picture of another size, a preview of a model that has no coarse stage, cameras that the model
            cannot be told, or a model that makes no orbits.
    """
    settings = settings or GenerateSettings()
    size_px = model.output_px
    given = _given(picture, model)
    if not model.facts.turns:
        raise Mv3dError(
            f"{model.facts.name} makes clips of a moving camera, not orbits: it is told no cameras, so nobody knows "
            "where its frames are seen from; ask it for a clip"
        )
    if not (settings.is_level_turn or settings.preview or is_camera_conditioned(model)):
        raise Mv3dError(f"{model.facts.name} is not told cameras and makes level, even turns only; ask it for one")
    cameras = settings.cameras(size_px)

    started = time.perf_counter()
    if model.volume is not None:
        begin_stage(on_step, "coarse")
    coarse = None if model.volume is None else make_coarse_orbit(model.volume, given, cameras, size_px)
    seconds = {"coarse": time.perf_counter() - started}
    if settings.preview:
        if coarse is None:
            raise Mv3dError(f"{model.facts.name} has no coarse stage, so it has no preview", argument="preview")
        frames, stages = from_autoencoder(coarse.views[:, :4]), "coarse surface"
    else:
        report = begin_stage(on_step, "views")
        conditions = make_conditions(model, given, cameras, settings.seed, coarse)
        frames = sample_views(model, conditions, settings.sampling, report)
        stages = "diffusion" if coarse is None else "coarse surface and diffusion"
        seconds["diffusion"] = time.perf_counter() - started - seconds["coarse"]
    check_finite(frames, "views")
    frames = frames.float().cpu().permute(0, 2, 3, 1).numpy()
    frames[0] = picture
    facts = _facts(model, stages, settings.seed, seconds)
    orbit = Orbit(np.ascontiguousarray(frames, dtype=np.float32), cameras, facts)
    return Generated(orbit, None if coarse is None else coarse.surface)


@torch.no_grad()
def generate_clip(
    picture: Frames,
    model: OrbitModel,
    settings: GenerateSettings | None = None,
    on_step: OnStep | None = None,
) -> Clip:
    """Set a framed picture in motion, by a model that makes no orbits, such as stock SVD.

    Arguments are those of `generate_orbit`; places and elevations of views mean nothing here.

    Returns:
        The clip; its first frame is the picture itself, on white if the model knows no alpha.

    Raises:
        Mv3dError: for a picture of another size, or a model of orbits.
    """
    settings = settings or GenerateSettings()
    given = _given(picture, model)
    if model.facts.turns:
        raise Mv3dError(f"{model.facts.name} makes orbits, not clips; ask it for one")
    started = time.perf_counter()
    report = begin_stage(on_step, "views")
    conditions = make_conditions(model, given, settings.cameras(model.output_px), settings.seed)
    frames = sample_views(model, conditions, settings.sampling, report).float().cpu()
    frames[0] = from_autoencoder(to_autoencoder(given[None].cpu(), model.vae.config["in_channels"]))[0]
    facts = _facts(
        model, "diffusion: a clip of no known cameras", settings.seed, {"all": time.perf_counter() - started}
    )
    return Clip(np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy()), facts)


def _given(picture: Frames, model: OrbitModel) -> Tensor:
    """The picture as (4, S, S) on the model's device, if it has the model's size."""
    size_px = model.output_px
    if picture.shape != (size_px, size_px, 4):
        raise Mv3dError(f"the model takes {size_px}x{size_px} RGBA pictures, got {'x'.join(map(str, picture.shape))}")
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).to(model.device)


def _facts(model: OrbitModel, stages: str, seed: int, seconds: dict[str, float]) -> Facts:
    return Facts(
        input_index=0,
        made_by=f"mv3d {mv3d.__version__}, model {model.facts.name} ({stages})",
        licence=model.facts.licence,
        seed=seed,
        seconds={key: round(value, 2) for key, value in seconds.items()},
    )

"""A framed picture becomes an orbit: coarse views first, then the video diffusion model (behind ``mv3d orbit``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import mv3d
from mv3d.camera_paths import OBJECT_RADIUS
from mv3d.cameras import static_orbit
from mv3d.clip import Clip
from mv3d.errors import Mv3dError
from mv3d.generate_settings import DEFAULT_ELEVATION_DEG, MAX_ELEVATION_DEG, MAX_VIEWS, GenerateSettings
from mv3d.mesh import Mesh
from mv3d.model.alpha import from_autoencoder, to_autoencoder
from mv3d.model.coarse_stage import CoarseObject, find_object
from mv3d.model.finite import check_finite
from mv3d.model.posed_picture import PosedPicture, panes_closed
from mv3d.model.relief import make_relief
from mv3d.model.staged import MaybeStaged, StagedModel, whole_model
from mv3d.orbit import Facts, Frames, Orbit
from mv3d.pixels import resize
from mv3d.progress import OnStep, begin_stage
from mv3d.reframing import is_alike
from mv3d.views import ObjectViews

_TEXTURE_VIEWS = 21

__all__ = [
    "DEFAULT_ELEVATION_DEG",
    "MAX_ELEVATION_DEG",
    "MAX_VIEWS",
    "GenerateSettings",
    "Generated",
    "PosedFrame",
    "generate",
    "generate_clip",
    "generate_orbit",
]


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """Another picture of the object, cut out and framed as the first is; and where from, beside it."""

    frame: Frames
    azimuth_deg: float
    """Counter-clockwise from the first picture's camera, seen from above."""
    elevation_deg: float


@dataclass(frozen=True, eq=False)
class Generated:
    """What a model makes of a picture."""

    orbit: Orbit
    thing: CoarseObject | None
    """What the coarse stage makes of the object; None of a model without one."""
    settings: GenerateSettings
    picture: Frames | None = None
    """(S, S, 4), the picture as its own view shows it, at its own resolution."""

    @property
    def surface(self) -> Mesh | None:
        """The object's closed surface in the orbit's world, without a texture; None without a coarse stage."""
        return None if self.thing is None else self.thing.mesh(OBJECT_RADIUS)

    @torch.no_grad()
    def texture_views(self) -> Orbit:
        """Views that a texture of the surface is made of: the orbit's, and the other pictures.

        A path of one's own may leave sides out: then they are views drawn from all around, with the picture.
        """
        if self.thing is None:
            return replace(self.orbit, picture=self.picture)
        orbit, pictures = self.orbit, self.thing.pictures
        if self.settings.path is not None:
            size_px = pictures[0].size_px
            cameras = static_orbit(_TEXTURE_VIEWS, self.settings.elevation_deg, size_px=size_px)
            drawn = from_autoencoder(self.thing.draw(cameras, size_px).views[:, :4])
            orbit = Orbit(_as_frames(drawn), cameras, Facts(input_index=0))
            orbit.frames[0] = _as_frames(pictures[0].rgba[None])[0]
        size_px = len(orbit.frames[0])
        more = [one.resized(size_px) for one in pictures[1:]]
        frames = np.concatenate([orbit.frames, *(_as_frames(one.rgba[None]) for one in more)])
        cameras = (*orbit.cameras, *(one.camera(size_px) for one in more))
        return Orbit(frames, cameras, orbit.facts, self.picture)


def generate_orbit(
    picture: Frames,
    model: MaybeStaged,
    settings: GenerateSettings | None = None,
    on_step: OnStep | None = None,
) -> Orbit:
    """`generate`, of which the orbit alone is wanted."""
    return generate(picture, model, settings, on_step).orbit


@torch.no_grad()
def generate(
    picture: Frames,
    model: MaybeStaged,
    settings: GenerateSettings | None = None,
    on_step: OnStep | None = None,
    more: Sequence[PosedFrame] = (),
    on_surface: Callable[[Orbit], None] | None = None,
) -> Generated:
    """Turn the object of a framed picture once around, or show it from where ``settings`` say.

    Args:
        picture: (S, S, 4) RGBA of the model's ``output_px``, framed by `mv3d.image.frame_picture`; or of the size that
            is asked for, if that is larger.
        model: from `mv3d.model.models.load_any_model`, or `mv3d.model.staged.load_in_stages`.
        settings: what is wanted.
        on_step: called with the stage, coarse or views, its steps done and in all.
        more: pictures of the object from other sides, of the same size.
        on_surface: called with the views drawn from the surface alone, what ``settings.preview`` makes, as soon as they
            are there; then they are sharpened. Of a model without a coarse stage there are none.

    Returns:
        The orbit, in which the view of the picture's own camera is the picture itself, and the surface behind it. Equal
        arguments on one machine give equal pixels.

    Raises:
        Mv3dError: for a picture of another size, a preview of a model that has no coarse stage, cameras that the model
            cannot be told, or a model that makes no orbits.
    """
    settings = settings or GenerateSettings()
    size_px = settings.size_px or model.output_px
    shown = [(picture, 0.0, settings.elevation_deg), *((one.frame, one.azimuth_deg, one.elevation_deg) for one in more)]
    given = [PosedPicture(_given(frame, model, size_px), *pose) for frame, *pose in shown]
    if model.coarse is not None:
        given = [replace(one, rgba=panes_closed(one.rgba)) for one in given]
    _check_settings(model, settings, len(given))
    cameras = settings.cameras(size_px)
    started = time.perf_counter()
    thing = None
    if model.coarse is not None:
        begin_stage(on_step, "coarse")
        if isinstance(model, StagedModel) and not settings.preview:
            model.prepare()
        small = [one.resized(model.output_px) for one in given]
        thing = replace(find_object(model.coarse, small), pictures=tuple(given))
        if settings.relief:
            thing = replace(thing, surface=make_relief(thing.surface, small[0]))
    views = ObjectViews(model, given[0], thing, settings)
    own = next((k for k, camera in enumerate(cameras) if is_alike(camera, given[0].camera(size_px))), None)
    seconds: dict[str, float] = {}

    def finished(frames: Tensor, stages: str) -> Orbit:
        check_finite(frames, "views")
        made = _as_frames(frames)
        if own is not None:
            made[own] = resize(picture, size_px, size_px) if len(picture) != size_px else picture
        return Orbit(made, cameras, _facts(model, stages, own, settings.seed, seconds))

    drawing = None
    if thing is not None and (settings.preview or on_surface is not None):
        drawing = views.draw(cameras)
        seconds["coarse"] = time.perf_counter() - started
        orbit = finished(views.drawn(cameras, drawing), "coarse surface")
        if on_surface is not None:
            on_surface(orbit)
        if settings.preview:
            return Generated(orbit, thing, settings)
    seconds["coarse"] = time.perf_counter() - started
    report = begin_stage(on_step, "views")
    whole_model(model)  # loaded now, if it is not there yet
    begun = time.perf_counter()
    sampled = views.sampled(cameras, report, drawing)
    seconds["diffusion"] = time.perf_counter() - begun
    orbit = finished(sampled, "diffusion" if thing is None else "coarse surface and diffusion")
    return Generated(orbit, thing, settings)


def _check_settings(model: MaybeStaged, settings: GenerateSettings, num_pictures: int) -> None:
    name = model.facts.name
    if not model.facts.turns:
        raise Mv3dError(
            f"{name} makes clips of a moving camera, not orbits: it is told no cameras, so nobody knows where its "
            "frames are seen from; ask it for a clip"
        )
    if not (settings.is_level_turn or settings.preview or model.is_camera_conditioned):
        raise Mv3dError(f"{name} is not told cameras and makes level, even turns only; ask it for one", argument="path")
    if model.coarse is None and settings.preview:
        raise Mv3dError(f"{name} has no coarse stage, so it has no preview", argument="preview")
    if model.coarse is None and settings.relief:
        raise Mv3dError(f"{name} has no coarse stage to tell a relief's depth; cut the object out", argument="matte")
    if model.coarse is None and num_pictures > 1:
        raise Mv3dError(f"{name} sees one picture, and has no surface that others could shape", argument="view")


@torch.no_grad()
def generate_clip(
    picture: Frames,
    model: MaybeStaged,
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
    from mv3d.model.models import sample_clip  # with diffusers: seconds, which a preview does without

    settings = settings or GenerateSettings()
    given = _given(picture, model, model.output_px)
    if model.facts.turns:
        raise Mv3dError(f"{model.facts.name} makes orbits, not clips; ask it for one")
    started = time.perf_counter()
    report = begin_stage(on_step, "views")
    whole = whole_model(model)
    frames = sample_clip(whole, given, settings.cameras(model.output_px), settings.sampling, report).float().cpu()
    frames[0] = from_autoencoder(to_autoencoder(given[None].cpu(), 4 if whole.has_alpha else 3))[0]
    facts = _facts(
        model, "diffusion: a clip of no known cameras", 0, settings.seed, {"all": time.perf_counter() - started}
    )
    return Clip(np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy()), facts)


def _given(picture: Frames, model: MaybeStaged, frame_px: int) -> Tensor:
    """The picture as (4, S, S) on the model's device, if it has the model's size, or that of larger frames."""
    size_px = model.output_px
    if picture.shape not in [(side, side, 4) for side in {size_px, max(size_px, frame_px)}]:
        raise Mv3dError(f"the model takes {size_px}x{size_px} RGBA pictures, got {'x'.join(map(str, picture.shape))}")
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).to(model.device)


def _as_frames(views: Tensor) -> Frames:
    """Views (N, 4, H, W) as (N, H, W, 4)."""
    return views.float().cpu().permute(0, 2, 3, 1).numpy().copy(order="C")


def _facts(model: MaybeStaged, stages: str, input_index: int | None, seed: int, seconds: dict[str, float]) -> Facts:
    return Facts(
        input_index=input_index,
        made_by=f"mv3d {mv3d.__version__}, model {model.facts.name} ({stages})",
        licence=model.facts.licence,
        seed=seed,
        seconds={key: round(value, 2) for key, value in seconds.items()},
    )

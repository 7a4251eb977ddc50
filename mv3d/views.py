"""An object's views from any camera: drawn from its surface, or sampled by the video diffusion model.

A model is asked for views as it was trained on, framed by its own lens from wherever the camera stands, and as large as
it makes them. Where others are wanted, what it changes in its drawn views is carried over to the drawn views of the
wanted cameras: those have the sharpness, at any size and through any lens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.camera_paths import OBJECT_RADIUS
from mv3d.cameras import DEFAULT_RADIUS, Camera
from mv3d.errors import Mv3dError
from mv3d.generate_settings import GenerateSettings
from mv3d.model.alpha import from_autoencoder, premultiplied, straight
from mv3d.model.coarse_stage import CoarseObject, CoarseOrbit
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.staged import MaybeStaged, whole_model
from mv3d.reframing import framing_camera, is_alike, middle_of, reframed, squared

_SAME_PLACE = 1e-6  # world units


@dataclass(frozen=True, eq=False)
class ObjectViews:
    """What makes views of one object."""

    model: MaybeStaged
    picture: PosedPicture
    thing: CoarseObject | None
    settings: GenerateSettings

    def draw(self, cameras: Sequence[Camera]) -> CoarseOrbit:
        """The surface from cameras, whose pictures become square."""
        return self._draw([squared(camera) for camera in cameras])

    def drawn(self, cameras: Sequence[Camera], drawing: CoarseOrbit | None = None) -> Tensor:
        """Views (N, 4, H, W) of the surface, straight RGBA in [0, 1], as large as the cameras' pictures.

        ``drawing`` is what `draw` makes of these cameras, if it is there already.
        """
        drawn = from_autoencoder((drawing or self.draw(cameras)).views[:, :4])
        return middle_of(drawn, cameras[0].width_px, cameras[0].height_px)

    def sampled(
        self,
        cameras: Sequence[Camera],
        on_step: Callable[[int, int], None] | None = None,
        drawing: CoarseOrbit | None = None,
    ) -> Tensor:
        """Views as above, by the diffusion model; ``drawing`` as above.

        Raises:
            Mv3dError: for cameras and sizes that a model without a surface cannot have.
        """
        from mv3d.model.models import sample_clip  # with diffusers: seconds, which a preview does without

        own_px, size_px = self.model.output_px, max(cameras[0].width_px, cameras[0].height_px)
        known = [self._known(camera, k) for k, camera in enumerate(cameras)]
        asked, at = self._with_picture_first(known)
        coarse = None
        if self.thing is not None:
            is_drawn = len(asked) == len(cameras) and all(map(_is_same, asked, cameras))
            coarse = drawing if drawing is not None and is_drawn else self._draw(asked)
        views = sample_clip(whole_model(self.model), self._small(), asked, self.settings.sampling, on_step, coarse)[at]
        if size_px == own_px and all(map(is_alike, cameras, known)):
            return views
        if coarse is None:
            if size_px > own_px:
                raise Mv3dError(f"{self.model.facts.name} makes views of {own_px} px; ask for no more", argument="size")
            return F.interpolate(views.float(), (size_px, size_px), mode="bilinear", antialias=True)
        change = premultiplied(views.float()) - premultiplied(from_autoencoder(coarse.views[at, :4]))
        while change.shape[-1] >= 2 * size_px:
            change = F.avg_pool2d(change, 2)
        known = [camera.resized(change.shape[-1], change.shape[-1]) for camera in known]
        changed = premultiplied(self.drawn(cameras, drawing)) + reframed(change, known, cameras)
        alpha = changed[:, 3:].clamp(0, 1)
        return straight(torch.cat([torch.minimum(changed[:, :3].clamp(min=0), alpha), alpha], dim=1))

    def _draw(self, cameras: Sequence[Camera]) -> CoarseOrbit:
        assert self.thing is not None
        # Orbits that need no other scale are drawn in each camera's own, to the last digit as they were trained on.
        radius = None if self.settings.path is None else OBJECT_RADIUS
        return self.thing.draw(cameras, cameras[0].width_px, radius)

    def _small(self) -> Tensor:
        return self.picture.resized(self.model.output_px).rgba

    def _known(self, camera: Camera, view: int) -> Camera:
        """The camera at the same place as the model knows it."""
        size_px = self.model.output_px
        if self.settings.path is None:
            return camera.resized(size_px, size_px)
        framing = framing_camera(camera, OBJECT_RADIUS, size_px)
        if self.thing is None and (abs(camera.radius - DEFAULT_RADIUS) > _SAME_PLACE or not is_alike(camera, framing)):
            raise Mv3dError(
                f"{self.model.facts.name} makes views from one distance, through one lens and towards the object's "
                f"middle, and has no surface to draw others of: camera {view} of the path has another distance, lens "
                "or direction; take path turn, swing, spiral or top",
                argument="path",
            )
        return framing

    def _with_picture_first(self, cameras: Sequence[Camera]) -> tuple[list[Camera], list[int]]:
        """The picture's own camera, then all others; and where the views are among them."""
        own = self.picture.camera(self.model.output_px)
        first = next((k for k, camera in enumerate(cameras) if is_alike(camera, own)), None)
        asked = [own if first is None else cameras[first], *(c for k, c in enumerate(cameras) if k != first)]
        if first is None:
            return asked, list(range(1, len(asked)))
        return asked, [0 if k == first else k + (k < first) for k in range(len(cameras))]


def _is_same(one: Camera, other: Camera) -> bool:
    """Whether two cameras are equal to the last digit, so that what is drawn from them is too."""
    lenses = [(c.focal_px, c.width_px, c.height_px, c.cx_px, c.cy_px) for c in (one, other)]
    return lenses[0] == lenses[1] and bool((one.world_from_cam == other.world_from_cam).all())

"""A field's noise is averaged away; what is smooth, or next to nothing, stays as it is."""

from __future__ import annotations

import torch

from mv3d.model.coarse import Field, Pictures, silhouette_rays
from mv3d.model.field_smoothing import smoothed_field

EMPTY_LOGIT = -12.0


def _field(volume: torch.Tensor, residual: torch.Tensor, rgba: torch.Tensor) -> Field:
    rays = silhouette_rays(rgba, volume.shape[2])
    pictures = Pictures(rgba, torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    outside = torch.ones(volume.shape[:4], dtype=torch.bool)
    outside[rays.picture, 0, rays.row, rays.column] = False
    volume = volume.masked_fill(outside[..., None], EMPTY_LOGIT)
    logits = volume[rays.picture, 0, rays.row, rays.column]
    return Field(
        pictures,
        rgba[:, :3],
        rays,
        logits,
        volume,
        torch.ones(1, 1, 8, 8, 8),
        residual,
        torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 8, 8, 8),
    )


def _disc(size_px: int) -> torch.Tensor:
    axis = (torch.arange(size_px) + 0.5) / size_px * 2 - 1
    return (axis[:, None] ** 2 + axis[None] ** 2 < 0.4).float().expand(1, 4, size_px, size_px).clone()


def test_a_smooth_field_stays_and_rays_take_nothing_from_outside_the_silhouette():
    slope = torch.linspace(-3, 3, 16).expand(1, 1, 16, 16, 16)
    field = _field(slope.clone(), torch.full((1, 1, 16, 16, 16), 0.7), _disc(64))
    smooth = smoothed_field(field)
    torch.testing.assert_close(smooth.residual, field.residual)
    torch.testing.assert_close(smooth.appearance, field.appearance)
    torch.testing.assert_close(smooth.volume, field.volume)  # at the silhouette's rim too, beside which all is empty


def test_noise_from_voxel_to_voxel_and_ray_to_ray_is_averaged_and_means_stay():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 1, 1, 32, 32, 32, generator=generator)
    field = _field(noise[0], noise[1], torch.ones(1, 4, 64, 64))
    smooth = smoothed_field(field)
    for before, after in ((field.volume, smooth.volume), (field.residual, smooth.residual)):
        assert after.std() < 0.35 * before.std()
        assert abs(after.mean() - before.mean()) < 0.01
    along = [x.volume.diff(dim=-1).std() / x.volume.std() for x in (field, smooth)]
    assert abs(along[1] / along[0] - 1) < 0.02  # bins of one ray are not mixed


def test_rays_through_a_gap_in_the_silhouette_stay_empty():
    rgba = torch.ones(1, 4, 64, 64)
    rgba[..., 20:44] = 0
    field = _field(torch.full((1, 1, 16, 16, 16), 4.0), torch.zeros(1, 1, 16, 16, 16), rgba)
    smooth = smoothed_field(field)
    torch.testing.assert_close(smooth.volume, field.volume)
    assert (smooth.volume[..., 7:9, :] == EMPTY_LOGIT).all()

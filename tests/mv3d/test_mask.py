"""An own mask tells where the object is, whatever the background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mv3d.cli import main
from mv3d.image import cut_out, load_mask, load_picture
from mv3d.orbit import load_orbit
from mv3d.pixels import Frames

SIZE = (48, 40)
BOX = (slice(8, 30), slice(10, 34))
RED = (200, 30, 20)


def cut(picture: Path, mask: Path) -> Frames:
    return cut_out(load_picture(picture), mask=load_mask(mask, picture))


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A red box before a background that no colour tells from it."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    pixels[BOX] = RED
    Image.fromarray(pixels).save(tmp_path / "busy.png")
    return tmp_path / "busy.png"


@pytest.fixture
def box() -> np.ndarray:
    levels = np.zeros(SIZE[::-1], dtype=np.uint8)
    levels[BOX] = 255
    return levels


def test_a_mask_is_grey_or_alpha(busy: Path, box: np.ndarray):
    grey, coloured, clear = (busy.with_name(name) for name in ("grey.png", "grey_rgb.png", "clear.png"))
    Image.fromarray(box).save(grey)
    Image.fromarray(np.repeat(box[..., None], 3, axis=2)).save(coloured)
    noise = Image.open(busy).convert("RGB")
    noise.putalpha(Image.fromarray(box))
    noise.save(clear)
    for mask in (grey, coloured, clear):
        made = cut(busy, mask)
        np.testing.assert_array_equal(made[..., 3], box / 255)
        np.testing.assert_allclose(made[BOX][..., :3] * 255, np.broadcast_to(RED, (22, 24, 3)), atol=1e-4)


def test_what_a_mask_covers_in_part_has_the_object_s_colour(busy: Path, box: np.ndarray):
    box[8:30, 34] = 128  # a soft edge, where the picture shows the background
    Image.fromarray(box).save(busy.with_name("mask.png"))
    made = cut(busy, busy.with_name("mask.png"))
    np.testing.assert_allclose(made[8:30, 34, 3], 128 / 255, atol=1e-6)
    np.testing.assert_allclose(made[8:30, 34, :3] * 255, np.broadcast_to(RED, (22, 3)), atol=1e-4)


def test_a_turned_photo_takes_a_mask_as_it_is_seen(busy: Path, box: np.ndarray):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    photo, mask = busy.with_name("photo.png"), busy.with_name("mask.png")
    Image.open(busy).transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    Image.fromarray(box).save(mask)
    np.testing.assert_array_equal(cut(photo, mask), cut(busy, mask))


def test_an_orbit_is_made_of_what_the_mask_covers(busy: Path, box: np.ndarray, tiny_model: Path):
    mask, out = busy.with_name("mask.png"), busy.with_name("out")
    Image.fromarray(box).save(mask)
    given = ["--preview", "--num-views", "2", "--model", str(tiny_model), "-o", str(out)]
    assert main(["orbit", str(busy), "--mask", str(mask), *given]) == 0
    orbit = load_orbit(out)
    rgb, alpha = orbit.frames[0, ..., :3], orbit.frames[0, ..., 3]
    assert alpha[16, 16] == 1
    assert alpha[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    np.testing.assert_allclose(rgb[alpha > 0.9] * 255, np.broadcast_to(RED, (int((alpha > 0.9).sum()), 3)), atol=2)

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw
from scipy.ndimage import gaussian_filter

from mv3d.errors import Mv3dError
from mv3d.image import cut_out, frame_picture, load_picture
from mv3d.matte import matte_plain
from mv3d.pixels import Frames, composite, from_uint8, resize

RED = (220, 40, 30)
ASSETS = Path(__file__).parents[2] / "assets"


def save(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def png_header(width_px: int, height_px: int) -> bytes:
    """A PNG that announces a size and ends before the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width_px, height_px, 8, 6, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", crc32(header)) + struct.pack(">I", 99) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks


# -------------------------------------------------------------------------------------------------
# Reading.


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", RED, "png", (*RED, 255)),
        ("RGBA", (*RED, 100), "png", (*RED, 100)),
        ("LA", (90, 50), "png", (90, 90, 90, 50)),
        ("L", 90, "png", (90, 90, 90, 255)),
        ("1", 1, "png", (255, 255, 255, 255)),
        ("I;16", 40_000, "png", (156, 156, 156, 255)),
        ("I", 40_000, "tif", (156, 156, 156, 255)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0, 255)),
        ("YCbCr", (76, 85, 255), "tif", (254, 0, 0, 255)),
        ("RGB", RED, "webp", (*RED, 255)),
        ("RGB", RED, "bmp", (*RED, 255)),
    ],
)
def test_every_mode_becomes_rgba(tmp_path, mode, colour, suffix, expected):
    options = {"lossless": True} if suffix == "webp" else {}
    rgba = load_picture(save(Image.new(mode, (20, 16), colour), tmp_path / f"p.{suffix}", **options))
    assert rgba.shape == (16, 20, 4)
    assert rgba.dtype == np.float32
    np.testing.assert_allclose(rgba * 255, np.broadcast_to(expected, rgba.shape), atol=1)


def test_palette_with_a_transparent_colour(tmp_path):
    picture = Image.new("P", (20, 16), 1)
    picture.putpalette([0, 0, 255, *RED])
    picture.putpixel((0, 0), 0)
    rgba = load_picture(save(picture, tmp_path / "p.png", transparency=0))
    assert rgba[0, 0, 3] == 0
    np.testing.assert_allclose(rgba[5, 5] * 255, (*RED, 255))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.new("RGB", (40, 24))
    upright.paste(RED, (0, 0, 20, 12))
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(upright.transpose(turns[orientation]), tmp_path / "p.png", exif=exif)
    np.testing.assert_allclose(load_picture(path)[..., :3], from_uint8(np.asarray(upright)))


def test_a_colour_profile_is_converted_and_a_broken_one_ignored(tmp_path):
    """Swapping red and green primaries in a valid profile must swap what is seen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ", 132), profile.index(b"gXYZ", 132)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    picture = Image.new("RGBA", (20, 16), (0, 200, 0, 77))
    swapped = load_picture(save(picture, tmp_path / "swapped.png", icc_profile=bytes(profile)))
    np.testing.assert_allclose(swapped[3, 3] * 255, (200, 0, 0, 77), atol=3)
    broken = load_picture(save(picture, tmp_path / "broken.png", icc_profile=b"not a profile"))
    np.testing.assert_allclose(broken[3, 3] * 255, (0, 200, 0, 77))


def test_the_first_picture_of_an_animation_is_used_with_a_note(tmp_path, caplog):
    first, second = Image.new("RGB", (20, 16), RED), Image.new("RGB", (20, 16))
    path = save(first, tmp_path / "p.gif", save_all=True, append_images=[second])
    np.testing.assert_allclose(load_picture(path)[0, 0, :3] * 255, RED, atol=1)
    assert "holds 2 pictures" in caplog.text


def test_large_pictures_are_reduced(tmp_path):
    assert load_picture(save(Image.new("RGB", (4096, 64)), tmp_path / "p.png")).shape == (32, 2048, 4)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"GIMP, hello", "no picture mv3d can read"),
        (b"", "no picture mv3d can read"),
        (png_header(30_000, 30_000), "30000x30000, over 64 megapixels"),
        (png_header(200_000, 400), "200000x400, over 64 megapixels"),
        (png_header(1, 1), "1x1; at least 16"),
        (png_header(64, 64), "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "no picture mv3d can read"),
    ],
    ids=["text", "empty", "bomb", "wide-bomb", "1x1", "header-only", "eps"],
)
def test_what_is_no_good_picture_is_refused(tmp_path, content, problem):
    path = tmp_path / "p.png"
    path.write_bytes(content)
    with pytest.raises(Mv3dError, match=problem) as caught:
        load_picture(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"p.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Mv3dError, match="damaged|no picture|cannot be opened"):
        load_picture(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(Mv3dError, match=r"p\.png cannot be opened: No such file"):
        load_picture(tmp_path / "p.png")
    with pytest.raises(Mv3dError, match="Is a directory"):
        load_picture(tmp_path)


# -------------------------------------------------------------------------------------------------
# Cutting out.


def draw_mug(background: tuple[int, int, int], size_px: int = 400) -> tuple[Frames, Frames]:
    """A mug with a handle, a label and a straw; returns its true RGBA and its photo on a background, (H, W, 3)."""
    large = Image.new("RGBA", (4 * size_px, 4 * size_px))
    draw = ImageDraw.Draw(large)
    scaled = lambda *box: tuple(round(4 * size_px * side) for side in box)  # noqa: E731
    draw.ellipse(scaled(0.55, 0.35, 0.9, 0.7), fill=RED)
    draw.ellipse(scaled(0.61, 0.41, 0.84, 0.64), fill=(0, 0, 0, 0))
    draw.rectangle(scaled(0.2, 0.25, 0.65, 0.8), fill=RED)
    draw.rectangle(scaled(0.3, 0.4, 0.5, 0.6), fill=(20, 20, 60))
    draw.rectangle(scaled(0.4, 0.1, 0.42, 0.3), fill=(20, 20, 60))
    half = resize(from_uint8(np.asarray(large)), size_px // 2, size_px // 2)
    truth = resize(half, size_px, size_px)  # edges two pixels wide, as a lens makes them
    noise = np.random.default_rng(0).normal(0, 1.5 / 255, (size_px, size_px, 3))
    return truth, (composite(truth, np.array(background) / 255) + noise).clip(0, 1).astype(np.float32)


def opaque(rgb: Frames) -> Frames:
    return np.concatenate([rgb, np.ones_like(rgb[..., :1])], axis=-1)


@pytest.mark.parametrize("background", [(255, 255, 255), (120, 160, 120), (10, 10, 10)])
def test_a_plain_background_is_removed_down_to_the_soft_edge(background):
    """On any other background the cut-out must look like the true object: alpha and colours at once."""
    truth, photo = draw_mug(background)
    freed = cut_out(opaque(photo), "plain")
    for elsewhere in [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)]:
        error = np.abs(composite(freed, elsewhere) - composite(truth, elsewhere)).max(axis=-1)
        assert error.mean() < 0.004
        assert np.quantile(error, 0.99) < 0.04
    assert freed[210, 290, 3] == 0  # through the handle
    assert freed[200, 160, 3] == 1  # the label


def test_dust_is_removed_and_a_patch_unlike_the_background_is_not_a_hole():
    photo = np.ones((200, 200, 3), dtype=np.float32)
    photo[40:160, 60:140] = (0.2, 0.3, 0.6)
    photo[80:120, 80:120] = 0.95  # nearly white, inside
    photo[10:14, 10:14] = 0
    alpha = cut_out(opaque(photo), "plain")[..., 3]
    assert alpha[:30].max() == 0
    assert alpha[50:150, 70:130].min() == 1


def test_a_background_of_many_colours_is_not_plain():
    noise = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    with pytest.raises(Mv3dError, match=r"border has one colour, 80% is needed; leave the matte to auto"):
        cut_out(opaque(noise), "plain")
    with pytest.raises(Mv3dError, match="nothing is left"):
        cut_out(opaque(noise), "auto")


def test_own_alpha_is_kept_unless_it_only_rounds_the_corners():
    truth, photo = draw_mug((255, 255, 255))
    np.testing.assert_array_equal(cut_out(truth), truth)
    rounded = opaque(photo)
    rounded[:5, :5, 3] = 0
    assert cut_out(rounded, "alpha")[200, 20, 3] == 1
    assert cut_out(rounded, "plain")[200, 20, 3] == 0


@pytest.mark.parametrize("matte", ["auto", "alpha"])
def test_a_transparent_picture_is_refused(matte):
    with pytest.raises(Mv3dError, match="transparent everywhere"):
        cut_out(np.zeros((32, 32, 4), dtype=np.float32), matte)


def test_an_empty_plain_picture_is_refused():
    with pytest.raises(Mv3dError, match="nothing is left"):
        cut_out(np.ones((32, 32, 4), dtype=np.float32), "plain")


def placed(name: str, background: Frames) -> tuple[Frames, NDArray[np.bool_]]:
    """A cut-out of assets/ before a background (256, 256, 3), and where it is."""
    rgba = resize(load_picture(ASSETS / f"{name}.png"), 256, 256)
    return opaque(rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])), rgba[..., 3] > 0.5


def agreement(freed: Frames, truth: NDArray[np.bool_]) -> float:
    found = freed[..., 3] > 0.5
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.slow
def test_an_object_is_found_before_a_background_of_many_colours():
    """A tiled floor: stripes of both directions in many colours, and noise."""
    random = np.random.default_rng(0)
    floor = np.kron(random.uniform(0.3, 0.8, (16, 16, 3)), np.ones((16, 16, 1)))
    floor = np.clip(floor + random.normal(0, 0.03, floor.shape), 0, 1).astype(np.float32)
    photo, truth = placed("elephant", floor)
    assert agreement(cut_out(photo), truth) > 0.9
    np.testing.assert_array_equal(cut_out(photo), cut_out(photo, "u2net"))


@pytest.mark.parametrize("name", ["car", "toaster"])
def test_a_shadow_goes_with_the_background_and_a_side_as_light_as_it_stays(name):
    y, x = np.mgrid[:256, :256]
    _, truth = placed(name, np.ones((256, 256, 3), dtype=np.float32))
    rows, columns = np.nonzero(truth)
    half = np.ptp(columns) / 2
    ellipse = np.hypot((x - columns.mean() - 10) / half, (y - rows.max() + 4) / (0.22 * half)) < 1
    shadow = gaussian_filter(0.5 * ellipse, 6)[..., None]
    photo, _ = placed(name, np.repeat(1 - shadow, 3, axis=-1).astype(np.float32))
    assert agreement(matte_plain(photo[..., :3]), truth) < 0.85
    assert agreement(cut_out(photo), truth) > 0.95


# -------------------------------------------------------------------------------------------------
# Framing.


@pytest.mark.parametrize("size_px", [64, 256])
@pytest.mark.parametrize("box", [(10, 20, 110, 120), (5, 150, 195, 160), (180, 2, 190, 140)])
def test_the_farthest_point_lies_on_the_circle_whatever_the_shape(box, size_px):
    picture = Image.new("RGBA", (200, 180))
    ImageDraw.Draw(picture).ellipse(box, fill=(*RED, 255))
    framed = frame_picture(from_uint8(np.asarray(picture)), size_px, fill=0.8)
    assert framed.shape == (size_px, size_px, 4)
    y, x = np.nonzero(framed[..., 3] > 0.2)
    middle = size_px / 2
    radius = np.hypot(x + 0.5 - middle, y + 0.5 - middle).max()
    assert radius == pytest.approx(0.8 * middle, abs=0.02 * size_px)
    assert x.min() + x.max() + 1 == pytest.approx(size_px, abs=2)
    assert y.min() + y.max() + 1 == pytest.approx(size_px, abs=2)


def test_framing_is_the_same_wherever_the_object_was():
    truth, _ = draw_mug((255, 255, 255), size_px=200)
    moved = np.zeros((500, 333, 4), dtype=np.float32)
    moved[290:490, 100:300] = truth
    np.testing.assert_allclose(frame_picture(moved, 64), frame_picture(truth, 64), atol=1e-5)


def test_framing_twice_changes_little():
    once = frame_picture(draw_mug((255, 255, 255))[0], 128)
    assert np.abs(composite(frame_picture(once, 128)) - composite(once)).mean() < 0.01


def test_nothing_cannot_be_framed():
    with pytest.raises(Mv3dError, match="nothing to frame"):
        frame_picture(np.zeros((32, 32, 4), dtype=np.float32), 64)

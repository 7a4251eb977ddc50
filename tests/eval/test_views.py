import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.views.views import find_views
from mv3d.conventions import sv3d_order
from mv3d.errors import Mv3dError
from mv3d.orbit import save_orbit
from mv3d.pixels import composite, to_uint8
from tests.eval.bad_pictures import put_animated, put_cmyk


def _save_pictures(frames: np.ndarray, folder: Path, name: str = "{:03d}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        Image.fromarray(to_uint8(frame)).save(folder / name.format(k))


def test_every_layout_gives_the_same_views(make_orbit, tmp_path):
    orbit = make_orbit(0, num_views=4)
    save_orbit(orbit, tmp_path / "orbit", for_people=False)
    _save_pictures(orbit.frames, tmp_path / "folder")
    strip = Image.fromarray(np.concatenate(list(to_uint8(orbit.frames)), axis=1))
    (tmp_path / "nested").mkdir()
    strip.save(tmp_path / "nested" / "0.png")
    strip.save(tmp_path / "strip.png")
    found = find_views(tmp_path)
    assert {name: source.kind for name, source in found.items()} == {
        "folder": "pictures",
        "nested": "strip",
        "orbit": "orbit",
        "strip": "strip",
    }
    for source in found.values():
        np.testing.assert_array_equal(source.load().frames, orbit.frames)
    assert found["orbit"].load().cameras == tuple(orbit.cameras) or found["orbit"].load().cameras is not None
    assert found["folder"].load().cameras is None


def test_a_single_object_is_called_dot(make_orbit, tmp_path):
    _save_pictures(make_orbit(0).frames, tmp_path / "views")
    assert list(find_views(tmp_path / "views")) == ["."]


def test_a_video_is_read_frame_by_frame(tmp_path):
    import imageio_ffmpeg

    levels = np.linspace(40, 220, 6).astype(np.uint8)
    writer = imageio_ffmpeg.write_frames(str(tmp_path / "000000.mp4"), (64, 64), fps=7, macro_block_size=2, quality=9)
    writer.send(None)
    for level in levels:
        writer.send(np.full((64, 64, 3), level))
    writer.close()
    (source,) = find_views(tmp_path).values()
    views = source.load()
    assert source.kind == "video"
    np.testing.assert_allclose(views.frames[:, 32, 32, 0] * 255, levels, atol=4)
    assert (views.frames[..., 3] == 1).all()


def test_an_orbit_s_own_video_has_its_views(make_orbit, tmp_path):
    orbit = make_orbit(0, num_views=5)
    save_orbit(orbit, tmp_path / "orbit")
    views = find_views(tmp_path / "orbit" / "orbit.mp4")["."].load()
    assert len(views) == 5
    seen = views.frames[:, ::8, ::8, :3].mean(axis=(1, 2))  # drawn eight times as large, for players
    np.testing.assert_allclose(seen, orbit.on().mean(axis=(1, 2)), atol=0.1)


@pytest.mark.parametrize("name", ["views/000.png", "orbit/transforms.json", "turn.mp4"])
def test_a_pipe_is_refused_instead_of_waited_for(make_orbit, tmp_path, name):
    _save_pictures(make_orbit(0).frames, tmp_path / "views")
    save_orbit(make_orbit(0), tmp_path / "orbit", for_people=False)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    found = find_views(tmp_path)[name.split("/")[0].split(".")[0]]
    with pytest.raises(Mv3dError, match="is a pipe or a device"):
        found.load()


def test_views_with_the_input_last_are_turned_to_begin_with_it(make_orbit, tmp_path):
    orbit = make_orbit(0)
    _save_pictures(orbit.frames[sv3d_order(5)], tmp_path / "sv3d")
    views = find_views(tmp_path)["sv3d"].load("input-last")
    np.testing.assert_array_equal(views.frames, orbit.frames)
    assert views.input_index == 0


def test_numbers_are_numbers_and_not_text(make_orbit, tmp_path):
    frames = make_orbit(0, num_views=12).frames
    _save_pictures(frames, tmp_path / "views", "view_{}.png")
    np.testing.assert_array_equal(find_views(tmp_path)["views"].load().frames, frames)


def _deep(folder: Path) -> None:
    Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(folder / "002.png")


def _deep_colour(folder: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(32 * 6) for _ in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "002.png").write_bytes(png)


def _turned(folder: Path) -> None:
    (folder / "002.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 32)).save(folder / "002.jpg", exif=exif)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_deep, "16 bits a channel"),
        (_deep_colour, "16 bits a channel"),
        (put_cmyk, "of mode CMYK"),
        (put_animated, r"is animated \(2 frames\)"),
        (_turned, "turned by its EXIF tag"),
        (lambda f: (f / "002.png").unlink(), "has no view 2"),
        (lambda f: (f / "000.png").rename(f / "007.png"), "has no view"),
        (lambda f: Image.new("RGB", (16, 16)).save(f / "002.png"), "differ in size: 16x16 and 32x32"),
        (lambda f: (f / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"), "no readable picture"),
        (lambda f: (f / "002.png").rename(f / "mask_002.png"), "mixes"),
        (lambda f: (f / "002.png").rename(f / "input.png"), "no number in its name"),
        (lambda f: Image.new("RGB", (96, 32)).save(f / "005.png"), "mixes strips of views"),
    ],
    ids=[
        "16 bit",
        "16 bit RGB",
        "CMYK",
        "animated",
        "EXIF",
        "missing",
        "gap",
        "size",
        "broken",
        "mixed",
        "name",
        "strip",
    ],
)
def test_what_would_be_changed_in_reading_is_refused(make_orbit, tmp_path, spoil, message):
    folder = tmp_path / "views"
    _save_pictures([composite(frame) for frame in make_orbit(0).frames], folder)
    spoil(folder)
    with pytest.raises(Mv3dError, match=message):
        find_views(tmp_path)["views"].load()


def test_orbit_folders_are_read_as_strictly(make_orbit, tmp_path):
    save_orbit(make_orbit(0), tmp_path / "orbit", for_people=False)
    _deep(tmp_path / "orbit" / "frames")
    with pytest.raises(Mv3dError, match="16 bits a channel"):
        find_views(tmp_path)["orbit"].load()


@pytest.mark.parametrize("name", ["nowhere", "empty", "note.txt"])
def test_nothing_to_score_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").touch()
    with pytest.raises(Mv3dError, match="does not exist|holds no views|neither a video"):
        find_views(tmp_path / name)

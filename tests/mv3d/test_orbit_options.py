"""Own cameras and several pictures from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageDraw

from mv3d.cli import main
from mv3d.export import load_mesh
from mv3d.more_pictures import parse_views
from mv3d.orbit import load_orbit

CHAIR = "chair.png"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a picture of a box's front, and of its side at another scale."""
    monkeypatch.chdir(tmp_path)
    for name, box in {CHAIR: (12, 6, 26, 27), "side.png": (4, 12, 24, 24)}.items():
        picture = Image.new("RGB", (40, 32), (255, 255, 255))
        ImageDraw.Draw(picture).rectangle(box, fill=(150, 80, 20) if name == CHAIR else (20, 80, 150))
        picture.save(tmp_path / name)
    return tmp_path


def _video(path: Path) -> dict:
    reader = imageio_ffmpeg.read_frames(str(path))
    known = next(reader)
    reader.close()
    return dict(known)


def test_a_path_of_the_camera_at_a_pace_and_size(here, tiny_model, capsys):
    (here / "keys.yaml").write_text(
        "- {}\n- {azimuth: 40, lens: 20, seconds: 0.5}\n- {azimuth: 0, lens: 33.8, seconds: 1}\n"
    )
    given = ["orbit", CHAIR, "--model", str(tiny_model), "--preview", "--size", "48"]
    assert main([*given, "-o", "keys", "--path", "keys.yaml", "--fps", "8"]) == 0
    orbit = load_orbit(here / "keys")
    assert orbit.frames.shape == (8, 48, 48, 4)
    assert [round(camera.azimuth_deg) for camera in orbit.cameras][4] == 40
    assert orbit.cameras[4].fov_deg == pytest.approx(20)
    video = _video(here / "keys" / "orbit.mp4")
    assert (video["fps"], video["duration"]) == (8, pytest.approx(1, abs=0.05))
    # The orbit that was made is a target for another picture.
    assert main(["orbit", "side.png", "--model", str(tiny_model), "--path", "keys", "-o", "again", "--preview"]) == 0
    again = load_orbit(here / "again")
    assert again.frames.shape == (8, 32, 32, 4)
    for ours, theirs in zip(again.cameras, orbit.cameras, strict=True):
        np.testing.assert_allclose(ours.world_from_cam, theirs.world_from_cam, atol=1e-6)


def test_several_pictures_shape_and_paint_one_object(here, tiny_model):
    given = ["orbit", CHAIR, "--model", str(tiny_model), "--preview", "--num-views", "4", "--elevation", "0"]
    assert main([*given, "-o", "one"]) == 0
    assert main([*given, "-o", "two", "--view", "side.png@90", "--mesh", "--faces", "500", "--texture-size", "64"]) == 0
    one, two = load_orbit(here / "one"), load_orbit(here / "two")
    side = two.frames[1]
    assert (side[..., 2] > side[..., 0])[side[..., 3] > 0.9].mean() > 0.7  # it is blue, as its picture
    assert not (one.frames[1, ..., 2] > one.frames[1, ..., 0])[one.frames[1, ..., 3] > 0.9].any()
    rows, columns = np.nonzero(side[..., 3] > 0.5)
    assert np.ptp(columns) > 1.25 * np.ptp(rows)  # and as long
    texture = load_mesh(here / "two" / "mesh.glb").texture
    assert texture is not None
    blue = texture.pixels[..., 2].astype(int) > texture.pixels[..., 0]
    assert 0.1 < blue.mean() < 0.9


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--path", "loop.yaml"], "there is no path loop.yaml: name turn, swing, spiral, top, zoom, dolly"),
        (["--path", "side.png"], "side.png cannot be read"),
        (["--path", "zoom", "--swing", "10"], "a swing of 10 is for path turn or swing, not for zoom (--swing)"),
        (["--path", "swing", "--swing", "500", "--elevation", "0"], "the path's steepest elevation is"),
        (["--fps", "0"], "fps 0 is outside 1 to 120 (--fps)"),
        (["--size", "9000"], "size 9000 is outside 16 to 2048 px (--size)"),
        (["--view", "side.png"], "'side.png' says no view; write FILE@AZIMUTH or FILE@AZIMUTH,ELEVATION"),
        (["--view", "side.png@left"], "'side.png@left' says no view"),
        (["--view", "side.png@90,85"], "side.png@90,85: elevation 85 is outside +-80 degrees (--view)"),
        (["--view", "absent.png@90"], "absent.png cannot be opened"),
        (["side.png", "--view", "side.png@90"], "side.png@90 shows one object, and there are 2 pictures (--view)"),
    ],
)
def test_what_cannot_be_is_one_line(here, capsys, tiny_model, arguments, problem):
    assert main(["orbit", CHAIR, *arguments, "--model", str(tiny_model)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "licence" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("mv3d: ")
    assert problem in lines[0]
    assert sorted(path.name for path in here.iterdir()) == [CHAIR, "side.png"]


def test_views_are_told_by_azimuth_and_elevation():
    first, second = parse_views(["a@b.png@-90", "c.png@180,20.5"])
    assert (str(first.path), first.azimuth_deg, first.elevation_deg) == ("a@b.png", 270, None)
    assert (str(second.path), second.azimuth_deg, second.elevation_deg) == ("c.png", 180, 20.5)


def test_json_of_a_path_says_where_its_orbit_is(here, capsys, tiny_model):
    assert main(["orbit", CHAIR, "--path", "swing", "--num-views", "3", "--model", str(tiny_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["orbit"] == "chair_orbit"
    azimuths = [camera.azimuth_deg for camera in load_orbit(here / "chair_orbit").cameras]
    np.testing.assert_allclose(azimuths, [0, 30 * np.sqrt(0.75), 360 - 30 * np.sqrt(0.75)], atol=1e-6)

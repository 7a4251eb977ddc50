"""Datasets that others made: what loads, and what is refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from mv3d.cameras import static_orbit
from mv3d.cli import main
from mv3d.conventions import to_nerf_synthetic, to_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.lift.silhouettes import cut_out_views
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import composite, to_uint8
from tests.mv3d.blocks import CRATE, view_boxes


@pytest.fixture(scope="module")
def views() -> Orbit:
    return view_boxes([CRATE], static_orbit(8, 20, size_px=48))


def write(folder: Path, views: Orbit, names: list[str], mode: str = "RGBA", background: float = 1.0) -> list[dict]:
    """Write the pictures; returns nerfstudio's frames without intrinsics."""
    frames = []
    for frame, camera, name in zip(views.frames, views.cameras, names, strict=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = frame if mode == "RGBA" else composite(frame, (background,) * 3)
        Image.fromarray(to_uint8(pixels), mode).save(path)
        frames.append({"file_path": name, "transform_matrix": camera.world_from_cam.tolist()})
    return frames


def names_of(pattern: str) -> list[str]:
    return [pattern.format(k) for k in range(8)]


def describe(folder: Path, transforms: dict, name: str = "transforms.json") -> None:
    (folder / name).write_text(json.dumps(transforms))


def is_the_same_orbit(loaded: Orbit, views: Orbit) -> None:
    for got, expected in zip(loaded.cameras, views.cameras, strict=True):
        np.testing.assert_allclose(got.world_from_cam, expected.world_from_cam, atol=1e-12)
        assert got.focal_px == pytest.approx(expected.focal_px)
        assert (got.cx_px, got.cy_px) == (24, 24)


# -------------------------------------------------------------------------------------------------
# What loads.


def test_nerf_synthetic_s_layout_gives_its_training_views(tmp_path: Path, views: Orbit) -> None:
    frames = write(tmp_path, views, names_of("train/r_{}.png"))
    for k, frame in enumerate(frames):
        frame |= {"file_path": f"./train/r_{k}", "rotation": 0.0314}
    angle = to_nerf_synthetic(views.cameras[0])["camera_angle_x"]
    describe(tmp_path, {"camera_angle_x": angle, "frames": frames}, "transforms_train.json")
    describe(tmp_path, {"camera_angle_x": angle, "frames": []}, "transforms_test.json")
    loaded = load_orbit(tmp_path)
    is_the_same_orbit(loaded, views)
    np.testing.assert_array_equal(to_uint8(loaded.frames), to_uint8(views.frames))


def test_nerfstudio_s_layout_with_intrinsics_per_frame_and_what_it_did_to_the_poses(
    tmp_path: Path, views: Orbit
) -> None:
    frames = write(tmp_path, views, names_of("images/frame_{:05d}.png"))
    for frame, camera in zip(frames, views.cameras, strict=True):
        frame |= to_nerfstudio(camera) | {"colmap_im_id": 1, "k1": 0.0}
    applied = {"applied_transform": np.eye(4)[:3].tolist(), "applied_scale": 0.25, "ply_file_path": "sparse_pc.ply"}
    describe(tmp_path, {"camera_model": "OPENCV", **applied, "frames": frames})
    is_the_same_orbit(load_orbit(tmp_path), views)  # the poses are stored as they were scaled: nothing to undo


@pytest.mark.parametrize("pattern", ["r_{}", "view.{:02d}", "a/b/c d/{}"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_names_without_suffix_find_their_pictures(tmp_path: Path, views: Orbit, pattern: str, suffix: str) -> None:
    frames = write(tmp_path, views, names_of(pattern + suffix), "RGBA" if suffix == ".png" else "RGB")
    for k, frame in enumerate(frames):
        frame["file_path"] = pattern.format(k)
    describe(tmp_path, {"camera_angle_x": 0.59, "frames": frames})
    assert load_orbit(tmp_path).frames.shape == (8, 48, 48, 4)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_the_object_is_found_in_pictures_without_alpha_on_black_or_white(
    tmp_path: Path, views: Orbit, background: float
) -> None:
    frames = write(tmp_path, views, names_of("{}.png"), "RGB", background)
    describe(tmp_path, to_nerfstudio(views.cameras[0]) | {"frames": frames})
    loaded = load_orbit(tmp_path)
    found, truth = cut_out_views(loaded).frames[..., 3] > 0.5, views.frames[..., 3] > 0.5
    assert ((found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))).min() > 0.9


# -------------------------------------------------------------------------------------------------
# What does not.


def break_matrix(folder: Path, transforms: dict) -> None:
    transforms["frames"][3]["transform_matrix"][1][2] = float("nan")


def scale_matrix(folder: Path, transforms: dict) -> None:
    transforms["frames"][3]["transform_matrix"] = (2 * np.eye(4)).tolist()


def lose_a_picture(folder: Path, transforms: dict) -> None:
    (folder / "3.png").unlink()


def shrink_a_picture(folder: Path, transforms: dict) -> None:
    Image.new("RGBA", (24, 24)).save(folder / "3.png")


def multiply(folder: Path, transforms: dict) -> None:
    transforms["frames"] *= 250


def climb(folder: Path, transforms: dict) -> None:
    Image.new("RGBA", (48, 48)).save(folder.parent / "secret.png")
    transforms["frames"][3]["file_path"] = "../secret.png"


def climb_without_suffix(folder: Path, transforms: dict) -> None:
    climb(folder, transforms)
    transforms["frames"][3]["file_path"] = "./sub/../../secret"


def point_at_nothing(folder: Path, transforms: dict) -> None:
    transforms["frames"][3]["file_path"] = "a\0b"


def name_nothing(folder: Path, transforms: dict) -> None:
    transforms["frames"][3]["file_path"] = ""


def keep_one(folder: Path, transforms: dict) -> None:
    del transforms["frames"][1:]


def empty(*numbers: int) -> Callable[[Path, dict], None]:
    def clear(folder: Path, transforms: dict) -> None:
        for k in numbers:
            Image.new("RGBA", (48, 48)).save(folder / f"{k}.png")

    return clear


def fill_with_noise(folder: Path, transforms: dict) -> None:
    Image.effect_noise((48, 48), 90).convert("RGB").save(folder / "3.png")
    for k in range(8):
        with Image.open(folder / f"{k}.png") as picture:
            picture.convert("RGB").save(folder / f"{k}.png")


def scatter_cameras(folder: Path, transforms: dict) -> None:
    for frame, shift in zip(transforms["frames"], np.random.default_rng(0).normal(0, 3, (8, 3)), strict=True):
        frame["transform_matrix"] = (
            np.array(frame["transform_matrix"]) + np.pad(shift[:, None], ((0, 1), (3, 0)))
        ).tolist()


def look_away(folder: Path, transforms: dict) -> None:
    for frame in transforms["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) * [-1, 1, -1, 1]).tolist()


def deepen(folder: Path, transforms: dict) -> None:
    Image.fromarray(np.full((48, 48), 40_000, dtype=np.uint16)).save(folder / "3.png")


def deepen_colours(folder: Path, transforms: dict) -> None:
    # Pillow writes no 16-bit RGB: the header of an 8-bit one says so instead, and is looked at first.
    content = bytearray((folder / "3.png").read_bytes())
    content[24] = 16
    header = content[12:29]
    content[29:33] = crc32(header).to_bytes(4, "big")
    (folder / "3.png").write_bytes(content)


def nest(folder: Path, transforms: dict) -> None:
    transforms["frames"][3]["transform_matrix"] = [[[1.0]]]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (break_matrix, r"3\.png: world_from_cam must be a finite 4x4 matrix"),
        (scale_matrix, r"3\.png: world_from_cam must"),
        (nest, r"3\.png: world_from_cam must be"),
        (lose_a_picture, r"3\.png is missing"),
        (shrink_a_picture, r"3\.png has another size than the first frame, 24x24 and not 48x48"),
        (multiply, "lists 2000 frames; 1 to 1000 are supported: keep some"),
        (climb, r"points outside its folder: \.\./secret\.png"),
        (climb_without_suffix, r"points outside its folder: \./sub/\.\./\.\./secret"),
        (point_at_nothing, "impossible name"),
        (name_nothing, "points outside its folder|no readable picture"),
        (keep_one, r"an orbit of 1 view\(s\) cannot be lifted: at least 3"),
        (deepen, r"3\.png has 16 bits a channel"),
        (deepen_colours, r"3\.png has 16 bits a channel"),
        (empty(*range(8)), "no view shows an object"),
        (empty(4), "view 4 shows no object; leave empty views out"),
        (fill_with_noise, "view 3 has neither transparency nor a plain background"),
        (scatter_cameras, "the views show no common object: their cameras do not fit"),
        (look_away, "the views show no common object: their cameras do not fit"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--preview"]], ids=["default", "preview"])
def test_a_damaged_dataset_gets_one_line_from_mv3d_lift(
    tmp_path: Path, views: Orbit, capsys: pytest.CaptureFixture, damage, problem: str, options: list[str]
) -> None:
    folder = tmp_path / "data"
    transforms = to_nerfstudio(views.cameras[0]) | {"frames": write(folder, views, names_of("{}.png"))}
    damage(folder, transforms)
    describe(folder, transforms)
    before = sorted(tmp_path.rglob("*"))
    assert main(["lift", str(folder), "-o", str(tmp_path / "new" / "mesh.obj"), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert re.search(problem, shown.err), shown.err
    assert sorted(tmp_path.rglob("*")) == before


def test_more_pixels_than_memory_are_refused_before_they_are_read(
    tmp_path: Path, views: Orbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mv3d.transforms._MAX_BYTES", 8 * 48 * 48 * 16 - 1)
    describe(tmp_path, to_nerfstudio(views.cameras[0]) | {"frames": write(tmp_path, views, names_of("{}.png"))})
    with pytest.raises(Mv3dError, match="8 frames of 48x48 take .* GiB of memory.*keep fewer"):
        load_orbit(tmp_path)

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from mv3d.cameras import Camera, sine_orbit, static_orbit
from mv3d.errors import Mv3dError
from mv3d.files import whole_file, whole_folder
from mv3d.orbit import Facts, Orbit, load_orbit, make_sheet, save_orbit
from mv3d.pixels import composite, from_uint8, resize, to_uint8


def make_orbit(num_views: int = 3, size_px: int = 16) -> Orbit:
    random = np.random.default_rng(0)
    frames = from_uint8(random.integers(0, 256, (num_views, size_px, size_px, 4), dtype=np.uint8))
    cameras = sine_orbit(num_views, 10, 20, radius=1.9, size_px=size_px)
    return Orbit(frames, cameras, Facts(input_index=1, source="chair", licence="CC0", seed=7, seconds={"render": 0.5}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_orbit(make_orbit(), tmp_path / "orbit", for_people=False)
    return tmp_path / "orbit"


def edit(folder: Path, change: dict, frame_change: dict | None = None) -> None:
    path = folder / "transforms.json"
    transforms = json.loads(path.read_text()) | change
    if frame_change:
        transforms["frames"][1] |= frame_change
    path.write_text(json.dumps(transforms))


def test_the_picture_behind_an_orbit_comes_back_at_its_own_size(tmp_path: Path):
    picture = np.zeros((40, 40, 4), dtype=np.float32)
    picture[5:30, 5:20] = 1
    orbit = replace(make_orbit(), picture=picture)
    save_orbit(orbit, tmp_path / "orbit", for_people=False)
    again = load_orbit(tmp_path / "orbit")
    np.testing.assert_array_equal(again.picture, picture)
    assert again.select([2, 1]).picture is again.picture
    assert again.select([0, 2]).picture is None  # nobody shows it then
    Image.new("RGBA", (40, 30)).save(tmp_path / "orbit" / "picture.png")
    with pytest.raises(Mv3dError, match="picture.png is not square"):
        load_orbit(tmp_path / "orbit")


# -------------------------------------------------------------------------------------------------
# In memory.


def test_composite_mixes_with_the_background_by_alpha():
    rgba = np.array([[1, 0, 0, 0.25]], dtype=np.float32)
    np.testing.assert_allclose(composite(rgba), [[1, 0.75, 0.75]])
    np.testing.assert_allclose(composite(rgba, (0, 0, 1)), [[0.25, 0, 0.75]])


def test_select_follows_the_input_view():
    orbit = make_orbit(4)
    some = orbit.select([2, 1])
    np.testing.assert_array_equal(some.frames, orbit.frames[[2, 1]])
    assert some.cameras == (orbit.cameras[2], orbit.cameras[1])
    assert some.facts.input_index == 1
    assert orbit.select([0]).facts.input_index is None


def test_frames_and_cameras_must_agree():
    orbit = make_orbit()
    with pytest.raises(ValueError, match="3 frames and 2 cameras"):
        Orbit(orbit.frames, orbit.cameras[:2])
    with pytest.raises(ValueError, match="8x8"):
        Orbit(orbit.frames, static_orbit(3, 0, size_px=8))
    with pytest.raises(ValueError, match="float32"):
        Orbit(to_uint8(orbit.frames), orbit.cameras)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size_px", [4, 7, 16, 23])
def test_resizing_a_plain_cut_out_neither_darkens_nor_stains_its_edge(size_px):
    rgba = np.zeros((16, 16, 4), dtype=np.float32)
    rgba[..., 2] = 1  # hidden blue
    rgba[4:12, 5:13] = (1, 0.5, 0, 1)
    out = resize(rgba, size_px, size_px)
    assert out.shape == (size_px, size_px, 4)
    seen = out[..., 3] > 0.01
    np.testing.assert_allclose(out[seen][:, :3], np.broadcast_to([1, 0.5, 0], (seen.sum(), 3)), atol=1e-3)
    assert out[..., 3].sum() * (16 / size_px) ** 2 == pytest.approx(64, rel=0.04)


def test_resizing_to_the_same_size_changes_nothing_seen():
    frame = make_orbit().frames[0]
    np.testing.assert_allclose(composite(resize(frame, 16, 16)), composite(frame), atol=1e-6)


def test_resizing_a_window_is_resizing_the_crop():
    frame = np.zeros((16, 16, 4), dtype=np.float32)
    frame[6:12, 5:10] = make_orbit().frames[0, :6, :5]
    np.testing.assert_allclose(resize(frame, 6, 6, (2, 3, 14, 15)), resize(frame[3:15, 2:14], 6, 6), atol=1e-6)


def test_resized_orbit_scales_its_cameras():
    small = make_orbit().resized(8)
    assert small.frames.shape == (3, 8, 8, 4)
    assert small.cameras[0].fov_deg == pytest.approx(33.8)


def test_sheet_tiles_row_by_row_on_white():
    pictures = np.stack([np.full((2, 3, 3), k, dtype=np.uint8) for k in range(5)])
    sheet = make_sheet(pictures, columns=2)
    np.testing.assert_array_equal(sheet[::2, ::3, 0], [[0, 1], [2, 3], [4, 255]])


# -------------------------------------------------------------------------------------------------
# The folder.


def test_saving_and_loading_is_the_identity_to_8_bit(folder):
    orbit, loaded = make_orbit(), load_orbit(folder)
    np.testing.assert_array_equal(to_uint8(loaded.frames), to_uint8(orbit.frames))
    assert loaded.facts == orbit.facts
    for again, camera in zip(loaded.cameras, orbit.cameras, strict=True):
        np.testing.assert_array_equal(again.world_from_cam, camera.world_from_cam)
        assert (again.focal_px, again.cx_px, again.cy_px) == (camera.focal_px, camera.cx_px, camera.cy_px)


def test_transforms_json_is_what_nerfstudio_documents(folder):
    transforms = json.loads((folder / "transforms.json").read_text())
    assert transforms["camera_model"] == "OPENCV"
    assert transforms["orientation_override"] == "none"
    assert (transforms["w"], transforms["h"], transforms["cx"], transforms["cy"]) == (16, 16, 8, 8)
    assert [frame["file_path"] for frame in transforms["frames"]] == [f"frames/00{k}.png" for k in range(3)]
    assert transforms["mv3d"]["views"][1] == {"azimuth_deg": 120, "elevation_deg": 27.320508, "radius": 1.9}


def test_cameras_that_differ_in_intrinsics_are_kept_apart(tmp_path):
    orbit = make_orbit()
    cameras = (replace(orbit.cameras[0], cx_px=5.0), *orbit.cameras[1:])
    save_orbit(Orbit(orbit.frames, cameras), tmp_path / "o", for_people=False)
    assert [camera.cx_px for camera in load_orbit(tmp_path / "o").cameras] == [5, 8, 8]


def test_the_folder_is_also_for_people(tmp_path):
    save_orbit(make_orbit(num_views=8), tmp_path / "o")
    with Image.open(tmp_path / "o" / "sheet.png") as sheet:
        assert sheet.size == (7 * 16, 2 * 16)
    num_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "o" / "orbit.mp4"))
    assert num_frames == 8
    assert seconds == pytest.approx(3, abs=0.5)


def test_nerf_synthetic_folder(tmp_path):
    """Field of view for all, no size, suffix left out, camera to world with OpenGL axes."""
    (tmp_path / "train").mkdir()
    frame = {"file_path": "./train/r_0", "rotation": 0.01, "transform_matrix": np.eye(4).tolist()}
    Image.new("RGBA", (10, 10), (255, 0, 0, 128)).save(tmp_path / "train" / "r_0.png")
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": np.pi / 2, "frames": [frame]}))
    orbit = load_orbit(tmp_path)
    np.testing.assert_allclose(orbit.frames[0, 0, 0], [1, 0, 0, 128 / 255])
    assert orbit.cameras[0].focal_px == pytest.approx(5)
    assert (orbit.cameras[0].cx_px, orbit.facts) == (5, Facts())


def test_instant_ngp_folder_with_smaller_pictures_than_its_cameras(tmp_path):
    Image.new("RGB", (20, 10), (0, 255, 0)).save(tmp_path / "a.jpg")
    frame = {"file_path": "a.jpg", "sharpness": 31.7, "transform_matrix": np.eye(4).tolist()}
    shared = {
        "camera_angle_x": 0.9,
        "camera_angle_y": 0.5,
        "fl_x": 41.0,
        "fl_y": 41.0,
        "k1": 0,
        "k2": 0,
        "p1": 0,
        "p2": 0,
    }
    sizes = {"is_fisheye": False, "cx": 20.5, "cy": 10.0, "w": 40, "h": 20.0, "aabb_scale": 4}
    (tmp_path / "transforms.json").write_text(json.dumps(shared | sizes | {"frames": [frame]}))
    orbit = load_orbit(tmp_path)
    camera = orbit.cameras[0]
    assert (camera.width_px, camera.height_px, camera.focal_px, camera.cx_px) == (20, 10, 20.5, 10.25)
    assert orbit.frames[0, 0, 0, 3] == 1


@pytest.mark.parametrize(
    ("change", "frame_change", "problem"),
    [
        ({"frames": []}, None, "lists 0 frames"),
        ({"frames": "many"}, None, "no list of frames"),
        ({"frames": [1]}, None, "no list of frames"),
        ({}, {"file_path": None}, "without file_path"),
        ({}, {"file_path": "../secret.png"}, "outside its folder"),
        ({}, {"file_path": "/etc/hosts"}, "outside its folder"),
        ({}, {"file_path": "frames/009.png"}, "missing"),
        ({}, {"file_path": "transforms.json"}, "no readable picture"),
        ({}, {"transform_matrix": [[float("nan")] * 4] * 4}, "finite"),
        ({}, {"transform_matrix": "none"}, "could not convert"),
        ({"fl_x": 0, "fl_y": 0}, None, "positive"),
        ({"w": 1e999}, None, "infinity"),
        ({"w": 32}, None, "aspect"),
        ({"k1": 0.2}, None, "distortion"),
        ({"mv3d": {"format_version": 99}}, None, "version 99"),
        ({"mv3d": []}, None, "version None"),
    ],
)
def test_damaged_folders_are_named_in_one_line(folder, change, frame_change, problem):
    edit(folder, change, frame_change)
    with pytest.raises(Mv3dError, match=problem) as caught:
        load_orbit(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_of_mixed_sizes_are_refused(folder):
    Image.new("RGBA", (8, 8)).save(folder / "frames" / "002.png")
    with pytest.raises(Mv3dError, match=r"frames/002\.png has another size"):
        load_orbit(folder)


def test_a_frame_linked_from_outside_is_refused(folder, tmp_path):
    Image.new("RGBA", (16, 16)).save(tmp_path / "elsewhere.png")
    (folder / "frames" / "002.png").unlink()
    (folder / "frames" / "002.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(Mv3dError, match="outside its folder"):
        load_orbit(folder)


def test_a_folder_without_transforms_is_no_orbit(tmp_path):
    for text, problem in [(None, "no orbit folder"), ("{", "cannot be read"), ("[]", "no list of frames")]:
        if text:
            (tmp_path / "transforms.json").write_text(text)
        with pytest.raises(Mv3dError, match=problem):
            load_orbit(tmp_path)


# -------------------------------------------------------------------------------------------------
# Whole or not at all.


def test_an_orbit_replaces_an_orbit_only_when_asked_and_nothing_else_ever(folder, tmp_path):
    orbit = make_orbit(num_views=2)
    with pytest.raises(Mv3dError, match="or overwrite it"):
        save_orbit(orbit, folder, for_people=False)
    assert len(load_orbit(folder)) == 3
    save_orbit(orbit, folder, overwrite=True, for_people=False)
    assert len(load_orbit(folder)) == 2
    documents = tmp_path / "documents"
    documents.mkdir()
    with pytest.raises(Mv3dError, match="no orbit folder"):
        save_orbit(orbit, documents, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "orbit"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_nothing_new(tmp_path, error):
    def write_and_fail(write) -> None:
        with write as partial:
            (partial / "a" if partial.is_dir() else partial).write_text("half")
            raise error

    for write in (whole_folder(tmp_path / "new"), whole_file(tmp_path / "new.txt")):
        with pytest.raises(error):
            write_and_fail(write)
        assert list(tmp_path.iterdir()) == []
    old = tmp_path / "old"
    old.mkdir()
    (old / "kept").touch()
    with pytest.raises(error):
        write_and_fail(whole_folder(old, overwrite=True))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["old", "old/kept"]


def test_a_new_folder_appears_with_its_parents_and_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "a" / "b"
    for name in ("first", "second"):
        with whole_folder(path, overwrite=name == "second") as partial:
            (partial / name).touch()
    assert [child.name for child in path.iterdir()] == ["second"]
    assert [child.name for child in path.parent.iterdir()] == ["b"]


def test_a_folder_written_by_another_meanwhile_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "both"

    def write(name: str, *, overwrite: bool, meanwhile: str | None = None) -> None:
        with whole_folder(path, overwrite=overwrite) as partial:
            (partial / name).touch()
            if meanwhile:
                write(meanwhile, overwrite=overwrite)

    with pytest.raises(Mv3dError, match="another process has written"):
        write("second", overwrite=False, meanwhile="first")
    assert [child.name for child in path.iterdir()] == ["first"]
    write("fourth", overwrite=True, meanwhile="third")
    assert [child.name for child in path.iterdir()] == ["fourth"]
    assert [child.name for child in tmp_path.iterdir()] == ["both"]


def test_many_processes_that_replace_one_folder_leave_one_whole(tmp_path):
    path, children = tmp_path / "all", []
    for k in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is delicate
            child = os.fork()
        if child:
            children.append(child)
            continue
        try:
            for _ in range(50):
                with whole_folder(path, overwrite=True) as partial:
                    for name in ("a", "b"):
                        (partial / name).write_text(str(k))
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert [child.name for child in tmp_path.iterdir()] == ["all"]
    assert (path / "a").read_text() == (path / "b").read_text()


def test_files_and_folders_do_not_replace_each_other(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Mv3dError, match="is a file"), whole_folder(tmp_path / "file", overwrite=True):
        pass
    with pytest.raises(Mv3dError, match="is a folder"), whole_file(tmp_path):
        pass
    with pytest.raises(Mv3dError, match="no folder with write permission"), whole_file(tmp_path / "file" / "below"):
        pass


def test_camera_of_a_loaded_orbit_is_immutable(folder):
    camera: Camera = load_orbit(folder).cameras[0]
    with pytest.raises(ValueError, match="read-only"):
        camera.world_from_cam[0, 0] = 2

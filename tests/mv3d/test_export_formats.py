"""Exports read again by libraries that are not ours, where they are installed, or by their published formulas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.cameras import sine_orbit
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.export import export_source, pick_format, save_mesh
from mv3d.orbit import Orbit, load_orbit, save_orbit
from mv3d.pixels import to_uint8
from tests.mv3d.blocks import CRATE, SIDE_COLOURS, TOP, make_block, view_boxes

POINT = np.array([0.1, -0.2, 0.3])


@pytest.fixture
def orbit() -> Orbit:
    return view_boxes([CRATE], sine_orbit(9, 10, 30, size_px=24))


@pytest.fixture
def folder(orbit: Orbit, tmp_path: Path) -> Path:
    """An orbit folder with its mesh."""
    save_orbit(orbit, tmp_path / "crate", for_people=False)
    save_mesh(make_block(), tmp_path / "crate" / "mesh.glb")
    return tmp_path / "crate"


def lies_on_the_crate(points: np.ndarray) -> np.ndarray:
    distance = np.minimum(np.abs(points - CRATE.low), np.abs(points - CRATE.high)).min(axis=-1)
    inside = ((points > np.array(CRATE.low) - 1e-5) & (points < np.array(CRATE.high) + 1e-5)).all(axis=-1)
    return inside & (distance < 1e-5)


# -------------------------------------------------------------------------------------------------
# Datasets.


@pytest.mark.parametrize("name", ["nerfstudio", "instant-ngp"])
def test_datasets_for_radiance_fields_are_read_back_by_us(folder: Path, orbit: Orbit, name: str) -> None:
    target = folder.parent / "out"
    assert export_source(folder, target, name).format == name
    again = load_orbit(target)
    kept = [0, 1, 2, 3, 5, 6, 7, 8] if name == "instant-ngp" else list(range(9))
    np.testing.assert_array_equal(to_uint8(again.frames), to_uint8(orbit.frames[kept]))
    for camera, k in zip(again.cameras, kept, strict=True):
        for got, expected in zip(camera.project(POINT), orbit.cameras[k].project(POINT), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_the_nerfstudio_dataset_has_points_to_start_splats_from(folder: Path) -> None:
    export_source(folder, folder.parent / "out", "nerfstudio")
    transforms = json.loads((folder.parent / "out" / "transforms.json").read_text())
    assert "mv3d" not in transforms
    cloud = trimesh.load(folder.parent / "out" / transforms["ply_file_path"])
    assert isinstance(cloud, trimesh.PointCloud)
    assert len(cloud.vertices) == 20_000
    assert lies_on_the_crate(cloud.vertices).all()
    on_top = cloud.vertices[:, 2] > CRATE.high[2] - 1e-5
    np.testing.assert_array_equal(np.unique(cloud.colors[on_top][:, :3], axis=0), SIDE_COLOURS[[TOP]])
    width, depth, height = np.subtract(CRATE.high, CRATE.low)
    share = width * depth / (2 * (width * depth + width * height + depth * height))
    assert on_top.mean() == pytest.approx(share, abs=0.01)


def test_nerf_synthetic_splits_its_views_and_names_them_without_suffix(folder: Path, orbit: Orbit) -> None:
    target = folder.parent / "out"
    export_source(folder, target, "instant-ngp")
    seen = {}
    for split in ("train", "val", "test"):
        described = json.loads((target / f"transforms_{split}.json").read_text())
        focal_px = 24 / (2 * np.tan(described["camera_angle_x"] / 2))
        assert focal_px == pytest.approx(orbit.cameras[0].focal_px)
        seen[split] = [frame["file_path"] for frame in described["frames"]]
        for path in seen[split]:
            with Image.open(target / f"{path}.png") as picture:
                assert (picture.mode, picture.size) == ("RGBA", (24, 24))
    assert seen["test"] == seen["val"] == ["./test/r_4"]
    assert len(seen["train"]) == 8


@pytest.mark.parametrize("differ", ["focal_px", "cx_px"])
def test_nerf_synthetic_refuses_lenses_it_cannot_say(folder: Path, orbit: Orbit, differ: str) -> None:
    cameras = (replace(orbit.cameras[0], **{differ: 20.0}), *orbit.cameras[1:])
    save_orbit(Orbit(orbit.frames, cameras), folder, overwrite=True, for_people=False)
    with pytest.raises(Mv3dError, match="export to nerfstudio instead"):
        export_source(folder, folder.parent / "out", "instant-ngp")
    assert not (folder.parent / "out").exists()


def test_pycolmap_reads_the_colmap_model(folder: Path, orbit: Orbit) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    cameras = (replace(orbit.cameras[0], cx_px=10.0), *orbit.cameras[1:])
    orbit = Orbit(orbit.frames, cameras)
    save_orbit(orbit, folder, overwrite=True, for_people=False)
    save_mesh(make_block(), folder / "mesh.glb")
    export_source(folder, folder.parent / "out", "colmap")
    model = pycolmap.Reconstruction(folder.parent / "out" / "sparse" / "0")
    assert (len(model.cameras), len(model.images), len(model.points3D)) == (2, 9, 20_000)
    for image in model.images.values():
        k = int(Path(image.name).stem)
        with Image.open(folder.parent / "out" / "images" / image.name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), to_uint8(orbit.frames[k]))
        np.testing.assert_allclose(image.project_point(POINT), orbit.cameras[k].project(POINT)[0], atol=1e-9)
        assert image.camera.model.name == "PINHOLE"
    points = np.array([point.xyz for point in model.points3D.values()])
    colours = np.array([point.color for point in model.points3D.values()])
    assert lies_on_the_crate(points).all()
    assert set(map(tuple, colours)) == set(map(tuple, SIDE_COLOURS))


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_pytorch3d_s_published_formula_projects_as_our_cameras_do(folder: Path, orbit: Orbit, suffix: str) -> None:
    """Row vectors, NDC with +X left and +Y up whose shorter side is [-1, 1] (docs/notes/cameras.md)."""
    cameras = tuple(replace(camera, cx_px=10.0, cy_px=15.0) for camera in orbit.cameras)
    save_orbit(Orbit(orbit.frames, cameras), folder, overwrite=True, for_people=False)
    path = folder.parent / f"cameras{suffix}"
    export_source(folder, path)
    stored = json.loads(path.read_text()) if suffix == ".json" else np.load(path)
    for k, camera in enumerate(cameras):
        rotation, translation, focal, principal, size = (
            np.array(stored[key][k]) for key in ("R", "T", "focal_length", "principal_point", "image_size")
        )
        x, y, depth = POINT @ rotation + translation
        in_ndc = focal * [x, y] / depth + principal
        height_px, width_px = size
        pixels = np.array([width_px, height_px]) / 2 - in_ndc * size.min() / 2
        expected, expected_depth = camera.project(POINT)
        np.testing.assert_allclose(pixels, expected, atol=1e-4)
        assert depth == pytest.approx(expected_depth, abs=1e-5)


# -------------------------------------------------------------------------------------------------
# USD.


@pytest.mark.parametrize("suffix", [".usd", ".usda", ".usdc", ".usdz"])
def test_usd_says_its_axes_and_units_and_passes_pixar_s_validators(folder: Path, suffix: str) -> None:
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdValidation

    path = folder.parent / "out" / f"a crate{suffix}"
    export_source(folder, path)
    texture = [] if suffix == ".usdz" else [f"a crate_{suffix[1:]}_texture.png"]
    assert sorted(child.name for child in path.parent.iterdir()) == [path.name, *texture]
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    (shape,) = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    bounds = UsdGeom.Imageable(stage.GetDefaultPrim()).ComputeWorldBound(0, "default").ComputeAlignedRange()
    (low_x, low_y, low_z), (high_x, high_y, high_z) = CRATE.low, CRATE.high
    np.testing.assert_allclose(bounds.GetMin(), (low_x, low_z, -high_y), atol=1e-6)
    np.testing.assert_allclose(bounds.GetMax(), (high_x, high_z, -low_y), atol=1e-6)
    assert len(shape.GetFaceVertexCountsAttr().Get()) == 12
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    problems = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [problem.GetErrorAsString() for problem in problems] == []


def test_without_usd_core_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(Mv3dError, match=r"pip install usd-core"):
        export_source(folder, folder.parent / "crate.usdz")
    assert [path.name for path in folder.parent.iterdir()] == ["crate"]


# -------------------------------------------------------------------------------------------------
# Which format, from what, to where.


@pytest.mark.parametrize(
    ("target", "name", "expected"),
    [("a.glb", None, "glb"), ("a.USDA", None, "usd"), ("a.npz", None, "pytorch3d"), ("a", "colmap", "colmap")],
)
def test_the_format_is_what_the_name_says(target: str, name: str | None, expected: str) -> None:
    assert pick_format(Path(target), name) == expected


def test_what_cannot_be_exported_gets_one_line_and_nothing_is_written(folder: Path) -> None:
    here = folder.parent
    save_orbit(load_orbit(folder), here / "bare", for_people=False)
    save_mesh(make_block(), here / "block.glb")
    (here / "documents").mkdir()
    before = sorted(here.rglob("*"))
    for source, target, name, problem in [
        (
            "crate",
            "out",
            None,
            "names no format: end it in .*, or say which for a folder: nerfstudio, instant-",
        ),
        ("crate", "out.fbx", None, "names no format"),
        ("crate", "out.obj", "glb", r"end it in \.glb"),
        ("bare", "out.glb", None, r"bare has no mesh\.glb; make it first: mv3d lift .*bare -o .*bare/mesh\.glb"),
        ("bare", "out.blend", None, r"has no mesh\.glb"),
        ("block.glb", "out", "colmap", "has no cameras, which colmap is made of"),
        ("absent", "out", "colmap", "absent is missing"),
        ("absent.glb", "out.obj", None, r"absent\.glb is missing"),
        ("absent", "out.obj", None, "names no mesh format that is read"),
        ("crate", "block.glb", None, "or overwrite it"),
        ("documents", "out", "nerfstudio", "no orbit folder"),
    ]:
        with pytest.raises(Mv3dError, match=problem) as caught:
            export_source(here / source, here / target, name)
        assert "\n" not in str(caught.value)
    for target, name, problem in [
        ("crate", "nerfstudio", "is the source itself"),
        ("documents", "colmap", "holds no sparse/0/cameras.txt"),
    ]:
        with pytest.raises(Mv3dError, match=problem):
            export_source(folder, here / target, name, overwrite=True)
    assert sorted(here.rglob("*")) == before


def test_overwrite_replaces_a_dataset_whole(folder: Path) -> None:
    target = folder.parent / "out"
    export_source(folder, target, "colmap")
    (target / "stale").touch()
    export_source(folder, target, "colmap", overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == ["images", "sparse"]


def test_an_obj_leaves_the_photo_of_its_name_alone(folder: Path) -> None:
    photo = folder.parent / "crate.png"
    Image.new("RGB", (3, 3)).save(photo)
    before = photo.read_bytes()
    export_source(folder, folder.parent / "crate.obj")
    assert photo.read_bytes() == before
    assert (folder.parent / "crate_texture.png").exists()


@pytest.mark.parametrize(
    ("target", "beside"),
    [
        ("crate.obj", "crate.mtl"),
        ("crate.obj", "crate_texture.png"),
        ("crate.usda", "crate_usda_texture.png"),
        ("crate.usdc", "crate_usdc_texture.png"),
    ],
)
@pytest.mark.parametrize("verb", ["lift", "export"])
def test_a_file_that_a_new_mesh_would_replace_beside_it_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture, verb: str, target: str, beside: str
) -> None:
    if target.endswith((".usda", ".usdc")):
        pytest.importorskip("pxr")
    kept = folder.parent / beside
    kept.write_text("somebody else's")
    before = sorted(folder.parent.rglob("*"))
    command = [verb, str(folder), "-o", str(folder.parent / target)]
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"mv3d: {kept} exists already; choose another name or overwrite it (--overwrite)"
    ]
    assert kept.read_text() == "somebody else's"
    assert sorted(folder.parent.rglob("*")) == before
    if verb == "export":
        assert main([*command, "--overwrite"]) == 0
        assert kept.read_bytes() != b"somebody else's"

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mv3d.dataset import read_manifest
from mv3d.depth import load_depth
from mv3d.orbit import load_orbit
from render.__main__ import main
from render.collection import iter_orbits
from tests.render.conftest import make_cube_mtl, make_cube_obj

SMALL = ("--num-views", "3", "--size", "16", "--workers", "1")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four objects in two shards of a run, two orbits each, with all passes; read only."""
    meshes = tmp_path_factory.mktemp("meshes")
    (meshes / "cube.mtl").write_text(make_cube_mtl())
    for name, height in (("cube", 1), ("long-0", 2), ("long-1", 3), ("long-2", 4)):
        (meshes / f"{name}.obj").write_text(make_cube_obj((1, 1, height)))
    out = tmp_path_factory.mktemp("rendered") / "out"
    for shard in ("0/2", "1/2"):
        more = ("--num-orbits", "2", "--shard", shard, "--passes", "depth", "normal", "albedo")
        assert main(["orbits", str(meshes), "--out", str(out), *SMALL, *more]) == 0
    return out


def test_shards_of_a_run_add_up_and_have_manifests_of_their_own(rendered: Path) -> None:
    names = [
        {json.loads(line)["object_id"] for line in path.read_text().splitlines()}
        for path in sorted(rendered.glob("manifest*"))
    ]
    assert [len(part) for part in names] == [2, 2]
    assert set.union(*names) == {"cube", "long-0", "long-1", "long-2"} == set(read_manifest(rendered))
    assert all(entry.orbits == 2 for entry in read_manifest(rendered).values())


def test_tar_shards_hold_the_same_bytes_and_read_the_same(rendered: Path, tmp_path: Path, capsys) -> None:
    assert main(["pack", str(rendered), "--out", str(tmp_path / "tars"), "--per-shard", "3"]) == 0
    shards = [Path(line) for line in capsys.readouterr().out.split()]
    assert shards == sorted((tmp_path / "tars").glob("*.tar"))
    with tarfile.open(shards[0]) as archive:
        names = archive.getnames()
        first = names[0].partition(".")[0]
        assert {name.partition(".")[2] for name in names if name.startswith(first + ".")} >= {
            "transforms.json",
            "000.png",
            "depth-002.png",
        }
        for inside, member in (("frames/001.png", "001.png"), ("normal/000.png", "normal-000.png")):
            packed = archive.extractfile(f"{first}.{member}")
            assert packed is not None
            assert packed.read() == (rendered / first / inside).read_bytes()
    unpacked, original = dict(iter_orbits(tmp_path / "tars")), dict(iter_orbits(rendered))
    assert unpacked.keys() == original.keys()
    assert len(unpacked) == 8
    for name, orbit in unpacked.items():
        np.testing.assert_array_equal(orbit.frames, original[name].frames)
        assert orbit.facts == original[name].facts
    assert main(["pack", str(rendered), "--out", str(tmp_path / "again"), "--per-shard", "3"]) == 0
    assert [p.read_bytes() for p in sorted((tmp_path / "again").glob("*.tar"))] == [p.read_bytes() for p in shards]
    assert main(["pack", str(rendered), "--out", str(tmp_path / "again")]) == 2
    assert "holds shards already" in capsys.readouterr().err


def test_passes_agree_with_the_frames_and_cameras(rendered: Path) -> None:
    folder = rendered / "cube" / "0"
    orbit = load_orbit(folder)
    depths = load_depth(folder)
    assert depths is not None
    for k, camera in enumerate(orbit.cameras):
        depth = depths[k]
        normal = np.asarray(Image.open(folder / f"normal/{k:03d}.png")).astype(float)
        solid = orbit.frames[k, ..., 3] == 1
        assert ((depth > 0) | (orbit.frames[k, ..., 3] < 1)).all()
        columns, rows = camera.sample_rays()
        points = camera.position + (rows[:, None] + columns[None]) * depth[..., None]
        yaw = np.radians(orbit.facts.extra["object_yaw_deg"])
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        surface = np.abs(points[solid] @ turn)  # back to the cube's own axes: one coordinate is half its side
        np.testing.assert_allclose(surface.max(axis=-1), 0.5, atol=2e-3)
        axes = normal[solid][:, :3] / 127.5 - 1
        np.testing.assert_allclose(np.linalg.norm(axes, axis=-1), 1, atol=0.02)
        assert (axes[:, 2] > 0).all()  # towards the camera
        assert (normal[depth == 0] == 0).all()
    albedo = np.asarray(Image.open(folder / "albedo/000.png"))
    values = albedo[albedo[..., 3] == 255][:, :3]
    # The cube's pure colours without shade; where faces meet, quarters of linear light.
    assert {0, 255} <= set(np.unique(values)) <= {0, 137, 188, 225, 255}


def test_sheets_show_each_object_once(rendered: Path, tmp_path: Path, capsys) -> None:
    assert main(["sheet", str(rendered), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "4 objects" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (4 * 128, 128)


def test_places_without_orbits_are_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    for arguments in (["sheet", str(tmp_path / "nowhere")], ["sheet", str(tmp_path / "bad.tar")]):
        assert main([*arguments, "--out", str(tmp_path / "sheet.png")]) == 2
    assert main(["pack", str(tmp_path), "--out", str(tmp_path / "tars")]) == 2
    assert "bad.tar is no tar shard" in (errors := capsys.readouterr().err)
    assert errors.count("render: ") == errors.count("\n") == 3


def test_a_shard_that_is_none_is_refused(meshes: Path, tmp_path: Path, capsys) -> None:
    for text in ("2/2", "1", "-1/2", "a/b"):
        assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), f"--shard={text}"]) == 2
        assert f"{text} is no share: give I/N, with I from 0 to N - 1 (--shard)" in capsys.readouterr().err


def test_a_dry_run_prices_the_job_and_writes_nothing(meshes: Path, tmp_path: Path, capsys) -> None:
    (meshes / "broken.glb").write_bytes(b"glTF, or so it says")
    assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), *SMALL, "--num-orbits", "4", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 objects, 12 frames: about ")  # half of the sample is broken: 1 of 2 objects counts
    assert "(from 2 objects, 1 of them not usable)" in printed
    assert not (tmp_path / "out").exists()

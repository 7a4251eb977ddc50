"""The whole benchmark on two small objects with a small model, as its users run it."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from eval.__main__ import main
from eval.metrics.names import BY_KEY
from eval.protocol import PROTOCOLS_FOLDER, load_protocol
from eval.scoring.baselines import LIFTED, MEAN, NEAREST, REPEATED, WHITE
from eval.scoring.results import load_result
from eval.truth.objects import list_objects, render_truth
from mv3d.errors import Mv3dError
from mv3d.orbit import load_orbit
from render.farm.split import identify, split_of
from render.scene.scene import make_scene
from tests.render.conftest import make_cube_mtl, make_cube_obj
from tests.tiny import TINY_UNET


def _write_protocol(file: Path, **changes: object) -> Path:
    tree = yaml.safe_load((PROTOCOLS_FOLDER / "mv3d-test.yaml").read_text())
    changes = {"num_views": 6, "resolution_px": 32, "split": None, "lpips": ["alex"]} | changes
    for key, value in changes.items():
        tree["settings"][key]["stated"] = value
    file.write_text(yaml.safe_dump(tree))
    return file


def _write_cuboids(folder: Path, sizes: dict[str, tuple[float, float, float]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "cube.mtl").write_text(make_cube_mtl())
    for name, size in sizes.items():
        (folder / f"{name}.obj").write_text(make_cube_obj(size))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two objects to score, one to train on, a flat one that cannot be rendered, and a protocol of six views."""
    root = tmp_path_factory.mktemp("benchmark")
    _write_cuboids(root / "objects", {"cube": (1, 1, 1), "tower": (1, 2, 1), "flat": (1, 0.001, 1)})
    _write_cuboids(root / "others", {"slab": (1, 0.5, 1)})
    _write_protocol(root / "small.yaml")
    return root


@pytest.fixture(scope="module")
def command(place, tiny_model) -> list[str]:
    protocol = load_protocol(str(place / "small.yaml"))
    train = place / "train"
    render_truth(list_objects(place / "others", None, place / "w"), protocol, train, workers=1)
    (train / "manifest.jsonl").unlink()  # which side the slab is on is chance
    words = ["run", "--protocol", str(place / "small.yaml"), "--objects", str(place / "objects")]
    words += ["--model", str(tiny_model), "--work", str(place / "work"), "--train", str(train), "--workers", "1"]
    return words


@pytest.fixture(scope="module")
def finished(place, command) -> Path:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("MV3D_CACHE", str(place / "no weights"))
    log = place / "log.jsonl"
    log.write_text("".join(json.dumps({"step": k, "loss": 1 / k, "val_psnr": 10 + k}) + "\n" for k in range(1, 9)))
    try:
        assert main([*command, "--out", str(place / "report"), "--train-log", str(log)]) == 0
    finally:
        monkeypatch.undo()
    return place / "report"


@pytest.mark.slow
def test_every_method_and_baseline_is_scored_on_every_object(finished):
    result = load_result(finished)
    assert [m.name for m in result.methods] == ["tiny", LIFTED, REPEATED, WHITE, MEAN, NEAREST]
    assert list(result.objects) == ["cube/0", "tower/0"]
    assert "flat" in result.left_out["flat/0"]
    psnr = {m.name: result.means(m.name, BY_KEY["psnr"], with_input=False) for m in result.methods}
    assert all(values is not None and list(values) == ["cube", "tower"] for values in psnr.values())
    assert np.mean(list((psnr[LIFTED] or {}).values())) > 3 + np.mean(list((psnr[WHITE] or {}).values()))
    # The model's own first view is its input, so the mean with it is higher.
    with_input = result.means("tiny", BY_KEY["psnr"], with_input=True)
    assert with_input is not None
    assert all(with_input[name] > (psnr["tiny"] or {})[name] for name in with_input)


@pytest.mark.slow
def test_lifted_true_views_are_nearly_the_body_and_consistent(finished):
    result = load_result(finished)
    for name in result.objects:
        whole = result.objects[name].whole[LIFTED]
        assert (whole["volume_iou"] or 0) > 0.6
        assert (whole["chamfer"] or 1) < 0.05
        assert (whole["consistency_iou"] or 0) > 0.7  # three views make a coarse hull
        assert (whole["consistency_psnr"] or 0) > (result.objects[name].whole["tiny"]["consistency_psnr"] or 99)
        assert (result.objects[name].whole["tiny"]["seconds"] or 0) > 0
        tiny = result.objects[name].whole["tiny"]
        share = (tiny["consistency_psnr_object"] or 0) / (whole["consistency_psnr_object"] or 1)
        assert tiny["consistency_share"] == pytest.approx(share)
        assert share < 1
    assert "consistency / true views' ↑" in (finished / "report.md").read_text()


@pytest.mark.slow
def test_the_report_states_protocol_versions_speed_and_what_is_absent(finished):
    text = (finished / "report.md").read_text()
    for stated in (
        "split by geometry hash",
        "peak memory gb",
        "seconds median",
        "torch 2",
        "clip_s is absent",
        "or fetch it once with: hf download openai/clip-vit-base-patch32",
        "input view",
    ):
        assert stated in text
    page = (finished / "report.html").read_text()
    for drawn in ("PSNR dB over azimuth", "val psnr", "Objects as wholes", "Turntables"):
        assert drawn in page


@pytest.mark.slow
def test_a_second_run_goes_on_where_the_first_stopped(finished, place, command, monkeypatch):
    monkeypatch.setenv("MV3D_CACHE", str(place / "no weights"))
    (predictions,) = (p for p in (place / "work").glob("small-*/tiny-*") if p.name.count("-") == 1)
    kept, lost = predictions / "cube/0/transforms.json", predictions / "tower/0"
    before, pixels = kept.stat().st_mtime_ns, load_orbit(lost).frames
    shutil.rmtree(lost)
    assert main([*command, "--out", str(place / "again")]) == 0
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(load_orbit(lost).frames, pixels)
    first, again = load_result(finished), load_result(place / "again")
    for name, scored in first.objects.items():
        assert again.objects[name].views == scored.views


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"path": "dynamic"},
        {"path": "random", "azimuths_deg": "random"},
        {"azimuths_deg": [0, 45, 90, 180, 270, 315]},
    ],
    ids=["dynamic", "random", "azimuths"],
)
def test_the_cameras_that_a_model_is_asked_for_are_the_protocols(place, command, tmp_path, monkeypatch, change):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))
    protocol = _write_protocol(tmp_path / "moving.yaml", geometry="none", **change)
    words = [str(protocol) if word.endswith("small.yaml") else word for word in command]
    words[words.index("--work") + 1] = str(tmp_path / "work")
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out")
    assert list(result.objects) == ["cube/0", "tower/0"]
    assert result.warnings == []
    assert "as poses" in str(result.methods[0].about["asked"])
    assert "evenly spaced" in result.absent[MEAN]
    (work,) = (tmp_path / "work").glob("moving-*")
    truth = load_orbit(work / "truth/cube/0")
    (made,) = (load_orbit(path.parent) for path in work.glob("tiny-*/cube/0/transforms.json"))
    for camera, wanted in zip(made.cameras, truth.cameras, strict=True):
        np.testing.assert_allclose(camera.world_from_cam, wanted.world_from_cam, atol=1e-9)
    # The model saw these cameras and not only their names: its coarse stage, asked for the same, shows the same.
    from mv3d.generate import GenerateSettings, generate_orbit
    from mv3d.model.checkpoints import load_model

    azimuths = tuple((c.azimuth_deg - truth.cameras[0].azimuth_deg) % 360 for c in truth.cameras)
    elevations = tuple(c.elevation_deg for c in truth.cameras)
    settings = GenerateSettings(6, elevations[0], azimuths, elevations)
    again = generate_orbit(truth.frames[0], load_model(command[command.index("--model") + 1], "cpu"), settings)
    np.testing.assert_allclose(made.frames, again.frames, atol=1 / 255)


def test_a_model_that_is_told_no_cameras_is_refused_before_anything_is_rendered(
    place, command, tiny_model, tmp_path, capsys
):
    from mv3d.model.checkpoints import load_model, save_model
    from mv3d.model.unet import OrbitUNet

    deaf = replace(load_model(str(tiny_model), "cpu"), unet=OrbitUNet(**TINY_UNET, pose_embed_dim=0).eval())
    save_model(deaf, tmp_path / "deaf")
    protocol = _write_protocol(tmp_path / "moving.yaml", path="dynamic")
    changed = {
        str(place / "small.yaml"): protocol,
        str(tiny_model): tmp_path / "deaf",
        str(place / "work"): tmp_path / "w",
    }
    words = [str(changed.get(word, word)) for word in command]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tiny is not conditioned on cameras and makes level, even turns; moving wants dynamic cameras" in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "w").exists()


def test_a_model_runs_on_a_gpu_where_there_is_one(place, command, tmp_path, monkeypatch, capsys):
    asked = []

    def refuse(name: str, settings: object, device: str) -> None:
        asked.append(device)
        raise Mv3dError("no further")

    monkeypatch.setattr("eval.benchmark.predict.load_predictor", refuse)
    words = [*command, "--out", str(tmp_path / "out")]
    for gpu in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        for device in ([], ["--device", "cpu"]):
            assert main([*words, *device]) == 2
    assert asked == ["cpu", "cpu", "cuda", "cpu"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    capsys.readouterr()
    assert main([*words, "--device", "cuda"]) == 2
    assert "cuda: this machine or this build of torch has no such device; use cpu (--device)" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [({"split": "test"}, "holds no object of the test split")])
def test_what_a_run_cannot_do_is_one_line_and_nothing_written(place, command, tmp_path, capsys, change, message):
    protocol = _write_protocol(tmp_path / "other.yaml", **change)
    words = [str(protocol) if word.endswith("small.yaml") else word for word in command]
    words[words.index(str(place / "objects"))] = str(_write_cuboids(tmp_path / "o", {"cube": (1, 1, 1)}))
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("eval: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_the_side_of_an_object_is_found_out_again_when_its_file_changes(tmp_path):
    shapes = {}
    for k in range(200):  # 8 % are on the test side
        folder = _write_cuboids(tmp_path / f"o{k}", {"cube": (1, 1, 1 + k / 10)})
        (item,) = list_objects(folder, None, tmp_path / "work")
        side = split_of(identify(item, make_scene(item.load(), linear_colours=item.linear_colours)))
        shapes.setdefault(side, (folder / "cube.obj").read_text())
        if {"train", "test"} <= shapes.keys():
            break
    for side in ("train", "test"):
        (folder / "cube.obj").write_text(shapes[side])
        assert [found.name for found in list_objects(folder, side, tmp_path / "work")] == ["cube"]


# -------------------------------------------------------------------------------------------------
# Google Scanned Objects as they are downloaded.


@pytest.fixture
def scans(tmp_path) -> Path:
    """Two scans of a tower that stands along Z, one unpacked and one still a zip."""
    root = tmp_path / "gso"
    corners = [(x, y, 2 * z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    quads = [(1, 3, 4, 2), (5, 6, 8, 7), (1, 2, 6, 5), (3, 7, 8, 4), (1, 5, 7, 3), (2, 4, 8, 6)]
    lines = ["mtllib model.mtl", *(f"v {x} {y} {z}" for x, y, z in corners), "vt 0.5 0.9", "vt 0.5 0.1"]
    lines += ["vn 0 0 1", "usemtl material_0"]
    # Upper corners take the upper half of the texture, which is red; lower ones the blue half.
    lines += ["f " + " ".join(f"{c}/{1 if c > 4 else 2}/1" for c in quad) for quad in quads]
    scan = root / "Tower_One"
    for folder in ("meshes", "materials/textures", "thumbnails"):
        (scan / folder).mkdir(parents=True)
    (scan / "meshes/model.obj").write_text("\n".join(lines) + "\n")
    (scan / "meshes/model.mtl").write_text("newmtl material_0\nmap_Kd texture.png\n")
    texture = np.zeros((8, 8, 3), dtype=np.uint8)
    texture[:4, :, 0] = texture[4:, :, 2] = 255
    Image.fromarray(texture).save(scan / "materials/textures/texture.png")
    Image.new("RGB", (8, 8)).save(scan / "thumbnails/0.jpg")
    (scan / "model.config").write_text("<model/>")
    (scan / "model.sdf").write_text("<sdf/>")
    (scan / "metadata.pbtxt").write_text('name: "Tower_One"\n')
    with zipfile.ZipFile(root / "Tower_Two.zip", "w") as archive:
        for path in sorted(scan.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(scan).as_posix())
    return root


def test_scans_stand_upright_with_their_texture(scans, tmp_path):
    objects = list_objects(scans, None, tmp_path / "work")
    assert [item.name for item in objects] == ["Tower_One", "Tower_Two"]
    protocol = load_protocol(str(_write_protocol(tmp_path / "p.yaml", elevation_deg=0.0)))
    folders, failed = render_truth(objects, protocol, tmp_path / "truth", workers=1)
    assert failed == {}
    for folder in folders.values():
        frames = load_orbit(folder).frames
        for frame in frames:
            rows, columns = np.nonzero(frame[..., 3] > 0.5)
            assert np.ptp(rows) > 1.3 * np.ptp(columns)  # twice as tall as wide, at most 1.4 wide when turned
            upper, lower = frame[rows.min() + 2, 16], frame[rows.max() - 2, 16]
            assert upper[0] > 3 * upper[2]
            assert lower[2] > 3 * lower[0]


def test_one_scan_or_scans_in_folders_are_found_too(scans, tmp_path):
    """Not taken for an ordinary OBJ file, which would lie on its side without its texture."""
    (single,) = list_objects(scans / "Tower_One", None, tmp_path / "one")
    assert single.name == "Tower_One"
    (scans / "shelf").mkdir()
    shutil.move(scans / "Tower_One", scans / "shelf/Tower_One")
    nested = list_objects(scans, None, tmp_path / "two")
    assert [item.name for item in nested] == ["Tower_Two", "shelf_Tower_One"]
    for item in (single, *nested):
        scene = make_scene(item.load(), linear_colours=item.linear_colours)
        width, depth, height = np.ptp(scene.corners.reshape(-1, 3), axis=0)
        assert height == pytest.approx(2 * width)
        assert height == pytest.approx(2 * depth)
        assert any(picture.shape[0] == 8 for picture in scene.textures)


def test_a_broken_zip_is_named(tmp_path):
    (tmp_path / "Scan.zip").write_bytes(b"PK broken")
    with pytest.raises(Mv3dError, match="Scan.zip is no readable zip"):
        list_objects(tmp_path, None, tmp_path / "work")


@pytest.mark.slow
def test_paths_that_are_no_even_turn_are_rendered_too(place, tmp_path):
    objects = list_objects(place / "objects", None, tmp_path / "work")
    changes = {
        "random": {"path": "random", "azimuths_deg": "random"},
        "dynamic": {"path": "dynamic"},
        "listed": {"azimuths_deg": [0, 45, 90, 180, 270, 315]},
    }
    orbits = {}
    for name, change in changes.items():
        small = load_protocol(str(_write_protocol(tmp_path / f"{name}.yaml", **change)))
        folders, failed = render_truth(objects, small, tmp_path / name, workers=1)
        assert list(folders) == ["cube/0", "tower/0"]
        assert "flat" in failed["flat/0"]
        orbits[name] = load_orbit(folders["cube/0"])
        assert (orbits[name].frames[..., 3].max(axis=(1, 2)) == 1).all()
        assert orbits[name].cameras[0].azimuth_deg == pytest.approx(0, abs=1e-6)
    assert [round(camera.azimuth_deg) for camera in orbits["listed"].cameras] == [0, 45, 90, 180, 270, 315]
    assert np.ptp([camera.elevation_deg for camera in orbits["listed"].cameras]) < 1e-6
    for name in ("random", "dynamic"):
        assert len({round(camera.elevation_deg, 1) for camera in orbits[name].cameras}) > 3

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mv3d
from mv3d.cameras import sine_orbit
from mv3d.cli import main
from mv3d.export import load_mesh
from mv3d.orbit import Facts, Orbit, load_orbit, save_orbit
from tests.mv3d.blocks import make_block

HEAVIEST = ("torch", "diffusers", "transformers", "trimesh", "skimage")
HEAVY = ("numpy", "PIL", "scipy", "imageio_ffmpeg", "tqdm", *HEAVIEST)
CHAIR = "chair.png"
LICENCE_LINE = "mv3d: model tiny; licence of its weights: CC0-1.0"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with one good picture."""
    monkeypatch.chdir(tmp_path)
    draw_chair(tmp_path / CHAIR)
    return tmp_path


def draw_chair(path: Path) -> None:
    picture = Image.new("RGB", (40, 32), (255, 255, 255))
    ImageDraw.Draw(picture).rectangle((12, 6, 26, 27), fill=(150, 80, 20))
    picture.save(path)


def paths_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -------------------------------------------------------------------------------------------------
# What is imported.


@pytest.mark.parametrize(
    ("arguments", "too_heavy"),
    [(["--help"], HEAVY), (["orbit", "--help"], HEAVY), (["orbit", "absent.png"], HEAVIEST)],
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments, too_heavy):
    code = (
        "import sys\nfrom mv3d.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        f"print([name for name in {too_heavy} if name in sys.modules])"
    )
    root = Path(mv3d.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -------------------------------------------------------------------------------------------------
# Bad input: one line, code 2, nothing left behind, and no waiting for the model.


def png_header(width_px: int, height_px: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width_px, height_px, 8, 6, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", crc32(header)) + struct.pack(">I", 99) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks


def truncate_chair() -> None:
    path = Path(CHAIR)
    path.write_bytes(path.read_bytes()[:-30])


BAD_INPUT = {
    "not an image": (lambda: Path("a.png").write_text("hello"), ["orbit", "a.png"], "a.png is no picture"),
    "truncated": (truncate_chair, ["orbit", CHAIR], "chair.png is damaged"),
    "1x1": (lambda: Image.new("RGB", (1, 1)).save("a.png"), ["orbit", "a.png"], "1x1; at least 16 pixels"),
    "huge header": (lambda: Path("a.png").write_bytes(png_header(30_000, 30_000)), ["orbit", "a.png"], "30000x30000"),
    "transparent": (lambda: Image.new("RGBA", (32, 32)).save("a.png"), ["orbit", "a.png"], "transparent everywhere"),
    "no plain background": (
        lambda: Image.effect_noise((64, 64), 90).save("a.png"),
        ["orbit", "a.png", "--matte", "plain"],
        "a.png: the background cannot be removed by colour",
    ),
    "a pipe": (lambda: os.mkfifo("a.png"), ["orbit", "a.png"], "a.png is a pipe or a device; save what it gives"),
    "links in a circle": (
        lambda: Path("a.png").symlink_to("a.png"),
        ["orbit", "a.png"],
        "a.png cannot be opened: Too many levels of symbolic links",
    ),
    "output to links in a circle": (
        lambda: Path("loop").symlink_to("loop"),
        ["orbit", CHAIR, "-o", "loop/out"],
        "cannot write loop/out: its symbolic links lead in a circle",
    ),
    "output named as a mesh": (None, ["orbit", CHAIR, "-o", "a.glb"], "a.glb: an orbit is a folder, which is not"),
    "output of many named as a video": (None, ["orbit", CHAIR, CHAIR, "-o", "a.MP4"], "name it a, and make files"),
    "missing": (None, ["orbit", "a.png"], "a.png cannot be opened"),
    "no picture named": (None, ["orbit"], "name a picture"),
    "no pictures in the folder": (lambda: Path("d").mkdir(), ["orbit", "d"], "no picture in d"),
    "output exists": (
        lambda: Path("chair_orbit").mkdir(),
        ["orbit", CHAIR],
        "another name or overwrite it (--overwrite)",
    ),
    "output is no orbit": (
        lambda: Path("chair_orbit").mkdir(),
        ["orbit", CHAIR, "--overwrite"],
        "chair_orbit is no orbit folder",
    ),
    "output below a file": (None, ["orbit", CHAIR, "-o", "chair.png/x"], "choose another place"),
    "two pictures, one name": (
        lambda: draw_chair(Path("chair.jpg")),
        ["orbit", CHAIR, "chair.jpg"],
        "chair.png and chair.jpg would both become chair_orbit",
    ),
    "framing of an oblong": (
        None,
        ["orbit", CHAIR, "--keep-framing"],
        "40x32; a picture that is framed already is square",
    ),
    "mask missing": (None, ["orbit", CHAIR, "--mask", "m.png"], "m.png cannot be opened"),
    "mask unreadable": (
        lambda: Path("m.png").write_text("hello"),
        ["orbit", CHAIR, "--mask", "m.png"],
        "m.png is no picture",
    ),
    "mask of another size": (
        lambda: Image.new("L", (32, 40), 255).save("m.png"),
        ["orbit", CHAIR, "--mask", "m.png"],
        "m.png is 32x40 and chair.png is 40x32; give a mask of the picture's size (--mask)",
    ),
    "mask empty": (
        lambda: Image.new("L", (40, 32), 0).save("m.png"),
        ["orbit", CHAIR, "--mask", "m.png"],
        "m.png is empty: nothing in it is white or opaque",
    ),
    "mask coloured": (
        lambda: Image.new("RGB", (40, 32), (200, 40, 40)).save("m.png"),
        ["orbit", CHAIR, "--mask", "m.png"],
        "m.png is a coloured picture without transparency; a mask is grey",
    ),
    "mask of two pictures": (
        lambda: draw_chair(Path("b.png")),
        ["orbit", CHAIR, "b.png", "--mask", CHAIR],
        "chair.png is the mask of one picture, and there are 2 (--mask)",
    ),
    "mask and matte": (
        None,
        ["orbit", CHAIR, "--mask", CHAIR, "--matte", "plain"],
        "chair.png says where the object is, and so does plain; leave one of them out (--matte)",
    ),
    "unknown option": (None, ["orbit", CHAIR, "--numviews", "3"], "--numviews"),
    "bad number": (None, ["orbit", CHAIR, "--num-views", "many"], "--num-views"),
    "bad choice": (None, ["orbit", CHAIR, "--matte", "magic"], "magic"),
    "no verb": (None, [], "orbit"),
    "lift without output": (None, ["lift", "d"], "--out"),
    "lift of no orbit": (lambda: Path("d").mkdir(), ["lift", "d", "-o", "m.glb"], "d is no orbit folder"),
    "lift of nothing": (None, ["lift", "d", "-o", "m.glb"], "d is no orbit folder"),
    "lift of a pipe": (
        lambda: (Path("d").mkdir(), os.mkfifo("d/transforms.json")),
        ["lift", "d", "-o", "m.glb"],
        "d/transforms.json is a pipe or a device",
    ),
    "export of links in a circle": (
        lambda: Path("a.glb").symlink_to("a.glb"),
        ["export", "a.glb", "-o", "m.obj"],
        "a.glb is missing",
    ),
    "export without output": (None, ["export", "d"], "--out"),
    "export of nothing": (None, ["export", "d", "-o", "c", "--format", "colmap"], "d is missing; name an orbit folder"),
    "export to an unknown suffix": (None, ["export", "d", "-o", "m.fbx"], "m.fbx names no format: end it in .glb"),
    "export to an unknown format": (None, ["export", "d", "-o", "m", "--format", "fbx"], "fbx"),
    "export without a mesh": (lambda: Path("d").mkdir(), ["export", "d", "-o", "m.obj"], "make it first: mv3d lift d"),
    "no such method": (None, ["lift", "d", "-o", "m.glb", "--method", "nerf"], "nerf"),
    "preview by others": (
        None,
        ["lift", "d", "-o", "m.ply", "--method", "splats", "--preview"],
        "leave one of them out (--preview)",
    ),
    "mesh exists": (lambda: Path("m.glb").touch(), ["lift", "d", "-o", "m.glb"], "m.glb exists already"),
}


@pytest.mark.parametrize(("prepare", "arguments", "problem"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_gets_one_line(here, capsys, monkeypatch, prepare, arguments, problem):
    for module in ("mv3d.generate", "mv3d.model.checkpoints", "mv3d.lift"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises
    if prepare:
        prepare()
    before = paths_below(here)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("mv3d: ")
    assert problem in shown.err
    assert not any(mark in shown.err for mark in ("───", "---", "│"))  # no frame left of tyro's
    assert paths_below(here) == before


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (["--num-views", "0"], "num_views 0 is outside 1 to 1000 (--num-views)"),
        (["--elevation", "95"], "elevation 95 is outside +-80 degrees (--elevation)"),
        (["--steps", "0"], "steps 0 are outside 1 to 1000 (--steps)"),
        (["--decode-chunk", "0"], "decode_chunk 0: give 1 frame or more (--decode-chunk)"),
        (["--mesh", "--faces", "99"], "faces 99 is outside 100 to 10000000 (--faces)"),
        (["--mesh", "--texture-size", "8193"], "texture_size 8193 is outside 64 to 8192 (--texture-size)"),
        (["--faces", "5000"], "faces 5000 is for a mesh, and none is asked for (--mesh)"),
        (["--texture-size", "512"], "texture_size 512 is for a mesh, and none is asked for (--mesh)"),
        (["--delight"], "delight is for a mesh, and none is asked for (--mesh)"),
        (["--swing", "75"], "a swing of 75 about elevation 10 reaches 85 degrees; stay within 80 (--swing)"),
        (["--swing", "30", "--num-views", "0"], "num_views 0 is outside"),
        (["--model", "no-such-folder"], "there is no model no-such-folder"),
        (["--device", "mps"], "mps: this machine or this build of torch has no such device; use cpu (--device)"),
    ],
)
def test_settings_that_cannot_be_get_one_line(here, capsys, option, problem):
    assert main(["orbit", CHAIR, *option]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"mv3d: {problem}")
    assert len(shown.splitlines()) == 1
    assert paths_below(here) == [CHAIR]


@pytest.mark.slow
def test_loras_change_the_orbit_and_are_named_in_it(here, tiny_model, capsys):
    """Two at their scales, fused and not; what is wrong with one is a line."""
    for name in ("a", "b"):
        make_lora(tiny_model, here / f"{name}.safetensors", seed=ord(name))
    given = ["orbit", CHAIR, "--num-views", "2", "--model", str(tiny_model), "--overwrite", "-o", "out"]
    frames = {}
    for name, options in {
        "none": [],
        "nothing of it": ["--lora", "a.safetensors:0"],
        "one": ["--lora", "a.safetensors:2"],
        "both": ["--lora", "a.safetensors:2", "--lora", "b.safetensors"],
        "both, unfused": ["--lora", "a.safetensors:2", "--lora", "b.safetensors", "--unfused"],
    }.items():
        assert main([*given, *options]) == 0
        frames[name] = load_orbit(here / "out").frames
    assert np.array_equal(frames["none"], frames["nothing of it"])
    assert not np.array_equal(frames["none"], frames["one"])
    assert not np.array_equal(frames["one"], frames["both"])
    assert np.abs(frames["both"] - frames["both, unfused"]).max() <= 1.01 / 255
    made_by = load_orbit(here / "out").facts.made_by
    assert made_by is not None
    assert "model tiny + a:2 + b:1" in made_by
    capsys.readouterr()
    for lora, message in {
        "absent.safetensors": "there is no file absent.safetensors",
        "a.safetensors:strong": "'strong' is no number; write FILE:SCALE, e.g. a.safetensors:0.8",
        CHAIR: "is no readable safetensors file",
    }.items():
        assert main([*given, "--lora", lora]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def make_lora(model: Path, path: Path, seed: int) -> None:
    import torch

    from mv3d.model.checkpoints import load_model
    from mv3d.model.lora import add_lora, lora_tensors, save_lora, targets_pattern
    from mv3d.model.lora_file import LoraFacts

    unet = load_model(model).unet
    add_lora(unet, rank=2, alpha=2.0, targets="temporal_attention")
    generator = torch.Generator().manual_seed(seed)
    for value in lora_tensors(unet.state_dict(), "default").values():
        value.copy_(torch.randn(value.shape, generator=generator))
    save_lora(unet, path, LoraFacts("tiny", "CC0-1.0", 2, 2.0, targets_pattern("temporal_attention")))


def test_verbose_adds_the_traceback(here, capsys):
    assert main(["orbit", "absent.png", "--verbose"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("mv3d: absent.png cannot be opened")


def test_ctrl_c_leaves_nothing(here, capsys, monkeypatch, tiny_model):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mv3d.orbit.save_sheet", interrupt)  # the last thing written
    assert main(["orbit", CHAIR, "--model", str(tiny_model), "--preview"]) == 130
    assert capsys.readouterr().err.splitlines() == [LICENCE_LINE, "mv3d: stopped"]
    assert paths_below(here) == [CHAIR]


# -------------------------------------------------------------------------------------------------
# Orbits made.


def test_a_picture_becomes_an_orbit_folder_and_the_same_seed_the_same_pixels(here, capsys, tiny_model):
    made = []
    for seed, out in ((3, "a"), (3, "b"), (4, "c")):
        options = ["--num-views", "4", "--elevation", "20", "--seed", str(seed), "--model", str(tiny_model), "--json"]
        assert main(["orbit", CHAIR, "-o", out, *options]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["picture"], facts["orbit"], facts["mesh"]) == (CHAIR, out, None)
        assert all(Path(facts[key]).exists() for key in ("orbit", "video", "sheet"))
        made.append(load_orbit(here / out))
    first, again, other = made
    assert first.frames.shape == (4, 32, 32, 4)
    assert (first.facts.source, first.facts.seed, first.facts.input_index) == (CHAIR, 3, 0)
    assert first.cameras[1].elevation_deg == pytest.approx(20)
    np.testing.assert_array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_the_decoder_gets_the_frames_that_are_asked_for(here, monkeypatch, tiny_model):
    from mv3d.model.decoding import decode_clip

    asked = []

    def decode(vae, latents, views, frames_at_once):
        asked.append(frames_at_once)
        return decode_clip(vae, latents, views, frames_at_once)

    monkeypatch.setattr("mv3d.model.pipeline.decode_clip", decode)
    for more in ([], ["--decode-chunk", "2"]):
        given = ["--num-views", "3", "--steps", "1", "--model", str(tiny_model), "--overwrite"]
        assert main(["orbit", CHAIR, *given, *more]) == 0
    assert asked == [None, 2]


def test_the_camera_swings_once_a_turn(here, tiny_model):
    given = ["--num-views", "4", "--swing", "30", "--elevation", "10", "--model", str(tiny_model)]
    assert main(["orbit", CHAIR, "-o", "a", *given]) == 0
    elevations = [camera.elevation_deg for camera in load_orbit(here / "a").cameras]
    assert elevations == pytest.approx([10, 40, 10, -20])


def test_a_frame_of_an_orbit_keeps_its_framing(here, tiny_model):
    frame = Image.new("RGBA", (64, 64))
    frame.paste((0, 90, 0, 255), (4, 10, 20, 30))
    frame.save("frame.png")
    assert main(["orbit", "frame.png", "--keep-framing", "--preview", "--model", str(tiny_model)]) == 0
    alpha = load_orbit(here / "frame_orbit").frames[0, ..., 3]
    assert alpha[5:15, 2:10].min() > 0.9
    assert alpha.sum() == pytest.approx(80, rel=0.01)


@pytest.mark.slow
def test_a_folder_becomes_a_mirrored_tree_whose_bad_pictures_do_not_stop_it(here, capsys, tiny_model):
    (here / "photos" / "deep").mkdir(parents=True)
    draw_chair(here / "photos" / "a.png")
    (here / "photos" / "b.jpg").write_text("no picture")
    draw_chair(here / "photos" / "deep" / "c.png")
    (here / "photos" / "notes.txt").touch()
    arguments = ["orbit", "photos", "-o", "photos", "--preview", "--num-views", "2", "--model", str(tiny_model)]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    unreadable = "mv3d: photos/b.jpg is no picture mv3d can read; convert it to PNG or JPEG"
    assert shown.err.splitlines() == [LICENCE_LINE, unreadable]
    assert len(load_orbit(here / "photos" / "deep" / "c_orbit")) == 2

    draw_chair(here / "photos" / "b.jpg")  # mended: the same command does what is missing, and takes no frame as input
    assert main([*arguments, "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(result["orbit"], result["kept"]) for result in results] == [
        ("photos/a_orbit", True),
        ("photos/b_orbit", False),
        ("photos/deep/c_orbit", True),
    ]


def test_an_orbit_that_another_process_made_meanwhile_stays(here, capsys, monkeypatch, tiny_model):
    """Two processes with one picture, or one tree of pictures: the first to end makes the orbit, the second says so."""
    first = Path("first")
    given = ["--preview", "--num-views", "2", "--model", str(tiny_model)]
    assert main(["orbit", CHAIR, "-o", str(first), *given]) == 0
    save_video = mv3d.orbit.save_video

    def save_while_another_ends(views: np.ndarray, path: Path, **_: object) -> None:
        save_video(views, path)
        shutil.copytree(first, path.parent.with_name("chair_orbit"))

    monkeypatch.setattr("mv3d.orbit.save_video", save_while_another_ends)
    capsys.readouterr()
    assert main(["orbit", CHAIR, *given]) == 2
    assert "another process has written" in capsys.readouterr().err.splitlines()[-1]
    assert load_orbit(Path("chair_orbit")).facts.command == load_orbit(first).facts.command
    shutil.rmtree("chair_orbit")
    (here / "photos").mkdir()
    draw_chair(here / "photos" / CHAIR)
    assert main(["orbit", "photos", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"]
    assert paths_below(here / "chair_orbit") == paths_below(here / "first")
    assert not [name for name in paths_below(here) if "partial" in name or "replaced" in name]


def test_a_mesh_asked_for_later_is_lifted_from_the_orbit_that_is_there(here, capsys, monkeypatch, ball):
    monkeypatch.setitem(sys.modules, "mv3d.model.checkpoints", None)  # no model is loaded for it
    lifted = []
    monkeypatch.setattr("mv3d.lift.lift_orbit", lambda orbit, *_: lifted.append(orbit) or make_block())
    draw_chair(here / "ball.png")
    before = paths_below(ball)
    assert main(["orbit", "ball.png", "-o", "ball", "--mesh"]) == 2  # nobody knows what it is the orbit of
    assert "is the orbit of another object, not of ball.png" in capsys.readouterr().err
    orbit = load_orbit(ball)
    save_orbit(replace(orbit, facts=Facts(source="ball.png")), ball, overwrite=True, for_people=False)
    assert main(["orbit", "ball.png", "-o", "ball", "--mesh", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["mesh"], facts["kept"]) == ("ball/mesh.glb", True)
    np.testing.assert_array_equal(lifted[0].frames, orbit.frames)
    assert len(load_mesh(ball / "mesh.glb").faces) == len(make_block().faces)
    assert paths_below(ball) == sorted([*before, "mesh.glb"])
    assert main(["orbit", "ball.png", "-o", "ball", "--mesh"]) == 2
    assert "ball exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_mesh_has_the_faces_and_the_texture_that_are_asked_for(here, tiny_model):
    counts = {}
    for more in ([], ["--faces", "200", "--texture-size", "256"]):
        given = ["orbit", CHAIR, "--preview", "--num-views", "3", "--model", str(tiny_model), "--mesh", "--overwrite"]
        assert main([*given, *more]) == 0
        mesh = load_mesh(here / "chair_orbit" / "mesh.glb")
        assert mesh.is_watertight
        assert mesh.texture is not None
        counts[len(more)] = len(mesh.faces), mesh.texture.pixels.shape
    assert counts[0][0] > 400
    assert counts[0][1] == (1024, 1024, 3)
    assert 100 < counts[4][0] <= 200
    assert counts[4][1] == (256, 256, 3)


def test_overwrite_replaces_an_orbit(here, tiny_model):
    for num_views in ("2", "3"):
        arguments = ["orbit", CHAIR, "--preview", "--num-views", num_views, "--model", str(tiny_model), "--overwrite"]
        assert main(arguments) == 0
    assert len(load_orbit(here / "chair_orbit")) == 3
    assert len(paths_below(here / "chair_orbit")) == 3 + 4


# -------------------------------------------------------------------------------------------------
# Meshes.


@pytest.fixture
def ball(here: Path) -> Path:
    """The orbit folder of a green ball of radius 0.5 around the origin."""
    cameras = sine_orbit(8, 0, 30, radius=2.2, size_px=32)
    rays = cameras[0].directions(cameras[0].pixel_grid())
    is_hit = np.linalg.norm(np.cross(cameras[0].position, rays), axis=-1) < 0.5  # the same in all views
    frame = np.where(is_hit[..., None], (0, 0.6, 0, 1), 0).astype(np.float32)
    save_orbit(Orbit(np.stack([frame] * 8), cameras), here / "ball", for_people=False)
    return here / "ball"


@pytest.mark.slow
def test_an_orbit_becomes_a_mesh(ball, capsys):
    assert main(["lift", "ball", "-o", "ball.glb", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["orbit"], facts["mesh"]) == ("ball", "ball.glb")
    mesh = load_mesh(Path("ball.glb"))
    assert mesh.is_watertight
    assert len(mesh.faces) == facts["faces"]
    np.testing.assert_allclose(np.abs(mesh.extent), 0.5, atol=0.06)
    assert main(["lift", "ball", "-o", "ball.glb"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["lift", "ball", "-o", "ball/mesh.glb"]) == 0
    capsys.readouterr()
    assert main(["export", "ball", "-o", "dataset", "--format", "colmap", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["source"], facts["out"], facts["format"]) == ("ball", "dataset", "colmap")
    assert main(["export", "ball", "-o", "again.obj"]) == 0
    assert capsys.readouterr().out.startswith("again.obj: obj in ")
    np.testing.assert_allclose(load_mesh(Path("again.obj")).extent, mesh.extent, atol=1e-6)

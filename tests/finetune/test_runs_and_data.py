"""A run and what becomes of its orbits between its starts: what is used, what is left out, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from finetune.__main__ import main
from finetune.data import UsedOrbits, note_objects
from finetune.read_config import load_config
from finetune.shards import list_shards
from finetune.stages.diffusion import DiffusionTraining
from mv3d.conventions import from_nerfstudio
from mv3d.dataset import read_manifest
from mv3d.errors import Mv3dError
from mv3d.orbit import load_orbit, save_orbit
from render.camera_paths import MOTIONS


@pytest.fixture
def orbits(rendered: Path, tmp_path: Path) -> Path:
    """The toy orbits, to be changed."""
    return Path(shutil.copytree(rendered, tmp_path / "orbits"))


@pytest.fixture
def adapt(write_recipe, orbits: Path, tmp_path: Path, capsys):
    """Encodes and trains so many steps; gives what was said of the orbits."""

    def run(steps: int, *settings: str) -> list[str]:
        words = [f"data={orbits}", f"diffusion.loop.steps={steps}", "diffusion.cache.variants=1", *settings]
        assert main([str(write_recipe()), *(w for setting in words for w in ("--set", setting))]) == 0
        lines = capsys.readouterr().err.splitlines()
        return [line for line in lines if " to train on" in line or "left out" in line]

    return run


def add_object(orbits: Path, name: str, split: str) -> None:
    shutil.copytree(orbits / "toy/ball-2", orbits / name)
    with (orbits / "manifest.jsonl").open("a") as file:
        file.write(json.dumps({"object_id": name, "orbits": 1, "split": split}) + "\n")


def objects_in(run: Path) -> set[str]:
    (folder,) = run.glob("latents-*")
    return {name for shard in list_shards(folder) for name in shard.object_ids}


@pytest.mark.slow
def test_an_orbit_is_left_out_with_its_reason_until_it_is_repaired(adapt, orbits: Path, tmp_path: Path):
    frame = orbits / "toy/ball-1/0/frames/002.png"
    good = frame.read_bytes()
    frame.write_bytes(b"nothing")
    said = adapt(1)
    assert said[0].endswith(
        "2 orbits of 2 objects to train on, none to validate with, so nothing is scored, 1 left out"
    )
    assert f"{orbits}/toy/ball-1/0 is left out: {frame} is no readable picture" in said[1]
    assert adapt(2) == said  # at every start
    assert objects_in(tmp_path / "run") == {"toy/ball-0", "toy/ball-2"}
    (folder,) = (tmp_path / "run").glob("latents-*")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    frame.write_bytes(good)
    (said,) = adapt(3)
    assert "3 orbits of 3 objects to train on" in said
    assert "0 left out" in said
    assert objects_in(tmp_path / "run") == {"toy/ball-0", "toy/ball-1", "toy/ball-2"}
    changed = [path for path, time in kept.items() if path.stat().st_mtime_ns != time]
    held = [path for path in kept if "toy/ball-1" in path.with_suffix(".json").read_text()]
    assert set(changed) == set(held) < set(kept)  # what does not hold it is not encoded again


@pytest.mark.slow
def test_new_objects_are_trained_on_and_removed_ones_are_not(adapt, orbits: Path, tmp_path: Path):
    adapt(1)
    add_object(orbits, "toy/new", "train")
    (said,) = adapt(2)
    assert "4 orbits of 4 objects" in said
    assert objects_in(tmp_path / "run") == {"toy/ball-0", "toy/ball-1", "toy/ball-2", "toy/new"}
    lines = (orbits / "manifest.jsonl").read_text().splitlines()
    kept = [line for line in lines if not any(f'"toy/{name}"' in line for name in ("ball-0", "ball-1"))]
    (orbits / "manifest.jsonl").write_text("\n".join(kept) + "\n")
    (said,) = adapt(3)
    assert "2 orbits of 2 objects" in said
    assert objects_in(tmp_path / "run") == {"toy/ball-2", "toy/new"}
    # The model has seen the removed ones all the same, and names their authors.
    assert len((tmp_path / "run/model/ATTRIBUTION.txt").read_text().splitlines()) == 4


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("[" * 100_000), os.mkfifo, Path.mkdir])
def test_a_damaged_list_of_what_was_trained_on_is_not_begun_anew(orbits: Path, tmp_path: Path, spoil):
    spoil(tmp_path / "trained_on.json")
    with pytest.raises(Mv3dError, match=r"trained_on.json cannot be read .* restore it: it names the objects"):
        note_objects(tmp_path, [orbits], UsedOrbits([], 0, {}))


@pytest.mark.slow
def test_other_data_are_noticed(adapt, orbits: Path, tmp_path: Path):
    adapt(1)
    (folder,) = (tmp_path / "run").glob("latents-*")
    before = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    other = Path(shutil.copytree(orbits, tmp_path / "other"))
    for path in other.glob("toy/*/0"):
        orbit = load_orbit(path)
        orbit.frames[..., :3] *= 0.5
        save_orbit(orbit, path, overwrite=True, for_people=False)
    adapt(2, f"data={other}")
    assert all(path.read_bytes() != before[path.name] for path in folder.glob("*.tar"))


def test_changed_bytes_of_a_shard_are_no_data(adapt, orbits: Path, tmp_path: Path, write_recipe, capsys):
    adapt(1)
    (folder,) = (tmp_path / "run").glob("latents-*")
    for path in folder.glob("*.tar"):
        data = bytearray(path.read_bytes())
        middle = data.index(b"latents.npy") + 700  # in an array, where the tar and the array stay readable
        data[middle : middle + 8] = bytes(8)
        path.write_bytes(data)
    words = [f"data={orbits}", "diffusion.loop.steps=9", "diffusion.cache.variants=1"]
    assert main([str(write_recipe()), *(w for word in words for w in ("--set", word))]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is damaged (its bytes were changed); delete it and run the same command again" in last


def test_lens_pan_and_zoom_reach_the_shards(write_recipe, orbits: Path):
    for path in orbits.glob("toy/*/0"):
        orbit = load_orbit(path)
        cameras = tuple(MOTIONS[m].moved(orbit.cameras[0], 1.0) for m in ("still", "pan-left", "zoom-in", "zoom-out"))
        save_orbit(type(orbit)(orbit.frames, cameras, orbit.facts), path, overwrite=True, for_people=False)
    stage = DiffusionTraining(load_config(write_recipe(), [f"data={orbits}"]))
    samples = {s.facts["variant"]: s for step in range(6) for s in stage.clips.samples(step)}
    stage.close()
    for variant, sample in samples.items():
        still, panned, nearer, farther = (from_nerfstudio(camera) for camera in sample.facts["cameras"])
        side = -1 if variant == 1 else 1  # a mirrored camera pans to the other side
        np.testing.assert_allclose(panned.world_from_cam, still.panned(side * 10).world_from_cam, atol=1e-12)
        assert nearer.focal_px == pytest.approx(1.5 * still.focal_px)
        assert farther.focal_px == pytest.approx(still.focal_px / 1.5)
        assert (still.width_px, still.height_px, still.cx_px) == (32, 32, 16)
    assert set(samples) == {0, 1, 2}


# -------------------------------------------------------------------------------------------------
# Stages of a new model.


@pytest.fixture
def train(config_file: Path, orbits: Path, capsys):
    """Trains the coarse network; gives the exit code and the lines on stderr."""

    def run(*settings: str) -> tuple[int, list[str]]:
        words = [f"data={orbits}", "coarse.loop.steps=2", "coarse.loop.validate_every=1", *settings]
        code = main([str(config_file), "--stage", "coarse", *(w for setting in words for w in ("--set", setting))])
        return code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]

    return run


def sides(orbits: Path, **given: str) -> None:
    lines = [
        {
            "object_id": f"toy/{name.replace('_', '-')}",
            "orbits": 1,
            "split": side,
            "attribution": "Ann",
            "licence": "CC0",
        }
        for name, side in given.items()
    ]
    (orbits / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_training_without_validation_works_and_says_so(train, orbits: Path, tmp_path: Path):
    sides(orbits, ball_0="train", ball_1="train")
    code, said = train()
    assert code == 0
    assert said == [
        "finetune: 2 orbits of 2 objects to train on, none to validate with, so nothing is scored, 0 left out"
    ]
    assert (tmp_path / "run/coarse/step-0000002").is_dir()
    code, said = train("coarse.loop.steps=3")
    assert (code, len(said)) == (0, 1)
    lines = [json.loads(line) for line in (tmp_path / "run/coarse/log.jsonl").read_text().splitlines()]
    assert not any(key.startswith("val_") for line in lines for key in line)


def test_no_stage_needs_an_object_to_validate_with(config_file: Path, orbits: Path, tmp_path: Path):
    sides(orbits, ball_0="train", ball_1="train")
    stages = ("autoencoder", "coarse", "diffusion")
    words = [f"data={orbits}", *(f"{stage}.loop.{key}=1" for stage in stages for key in ("steps", "validate_every"))]
    assert main([str(config_file), *(w for setting in words for w in ("--set", setting))]) == 0
    for stage in stages:
        assert (tmp_path / f"run/{stage}/step-0000001").is_dir()
        assert "val_" not in (tmp_path / f"run/{stage}/log.jsonl").read_text()
    assert (tmp_path / "run/model/model_index.json").is_file()


def test_a_continued_run_takes_other_data_and_sides(train, orbits: Path, tmp_path: Path):
    code, said = train()
    assert (code, said[0]) == (0, "finetune: 3 orbits of 3 objects to train on, 1 to validate with, 0 left out")
    (orbits / "toy/ball-0/0/frames/001.png").write_bytes(b"nothing")
    add_object(orbits, "toy/new", "val")
    code, said = train("coarse.loop.steps=3", "validation_objects=2")
    assert (code, said[0]) == (0, "finetune: 2 orbits of 2 objects to train on, 2 to validate with, 1 left out")
    assert "toy/ball-0/0 is left out: " in said[1]
    assert "001.png is no readable picture" in said[1]


def test_a_list_of_objects_as_curation_writes_it_is_trained_on(train, orbits: Path, tmp_path: Path):
    (orbits / "broad.txt").write_text("toy/ball-0\ntoy/ball-3\ntoy/gone\n")
    code, said = train(f"data={orbits / 'broad.txt'}")
    assert (code, said[0]) == (0, "finetune: 1 orbits of 1 objects to train on, 1 to validate with, 1 left out")
    assert said[1:] == [f"finetune: {orbits}/toy/gone is left out: broad.txt names it, and the manifest does not"]
    assert set(json.loads((tmp_path / "run/trained_on.json").read_text())) == {"toy/ball-0"}
    (orbits / "broad.txt").write_text("toy/ball-0\ntoy/ball-1\n")  # other rules, the same run
    code, said = train(f"data={orbits / 'broad.txt'}", "coarse.loop.steps=3")
    assert (code, said[0].split(", ")[0]) == (0, "finetune: 2 orbits of 2 objects to train on")


def test_nothing_to_train_on_is_one_line(train, orbits: Path, tmp_path: Path):
    sides(orbits, ball_0="val", ball_1="test")
    code, said = train()
    assert (code, said) == (2, [f"finetune: no orbit of {orbits} is in the split train"])
    assert read_manifest(orbits)["toy/ball-0"].split == "val"
    assert not (tmp_path / "run/coarse").exists()

"""Words in place of a picture: ``mv3d orbit --prompt``, with tiny models of diffusers' format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mv3d.cli import main
from mv3d.model.text_to_image import make_picture
from mv3d.model_options import ModelOptions
from mv3d.options import PromptOptions
from mv3d.orbit import load_orbit
from mv3d.prompt import Prompt
from tests.mv3d.hub_double import hub_double
from tests.mv3d.text_models import make_sd, make_sd3, make_sdxl

TEAPOT = "A red teapot!"


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd(tmp_path_factory.mktemp("text") / "tiny-sd")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def words(sd: Path, tiny_model: Path) -> list[str]:
    """Random weights draw noise, which has no background: all of it is the object."""
    given = ["orbit", "--prompt", TEAPOT, "--text-model", str(sd), "--text-steps", "2", "--model", str(tiny_model)]
    return [*given, "--num-views", "3", "--matte", "alpha"]


def drawn(folder: str) -> np.ndarray:
    return np.asarray(Image.open(f"{folder}/prompt.png"))


@pytest.mark.slow
def test_words_become_a_picture_and_an_orbit_and_both_are_kept(here, words, sd, capsys):
    assert main([*words, "--seed", "7", "--json"]) == 0
    folder = "a_red_teapot_orbit"
    facts = json.loads(capsys.readouterr().out)
    assert (facts["picture"], facts["orbit"]) == (f"{folder}/prompt.png", folder)
    orbit = load_orbit(Path(folder))
    assert len(orbit) == 3
    assert orbit.facts.source == "a_red_teapot.png"
    assert {key: value for key, value in orbit.facts.extra.items() if key.startswith("prompt")} == {
        "prompt": TEAPOT,
        "prompt_asked": f"{TEAPOT}, the whole object, centered, on a plain white background",
        "prompt_picture": "prompt.png",
        "prompt_model": str(sd),
        "prompt_seed": 7,
        "prompt_steps": 2,
    }
    picture = drawn(folder)
    assert picture.shape == (32, 32, 3)
    assert picture.std() > 10
    # The orbit is that of the picture as a file.
    assert (
        main(["orbit", f"{folder}/prompt.png", "--matte", "alpha", "--num-views", "3", "--seed", "7", *words[7:9]]) == 0
    )
    np.testing.assert_array_equal(load_orbit(Path("prompt_orbit")).frames, orbit.frames)
    # Equal words and seeds make equal pixels; another seed, and other words, others.
    prompt = Prompt(TEAPOT, PromptOptions(str(sd), text_steps=2), seed=7)
    steps = []
    again = make_picture(prompt, "cpu", ModelOptions(), lambda *step: steps.append(step))
    np.testing.assert_array_equal(np.asarray(again), picture)
    assert steps == [(1, 2), (2, 2)]
    for other in (
        replace(prompt, seed=8),
        replace(prompt, text="a blue cup"),
        replace(prompt, options=replace(prompt.options, text_guidance=1.5)),
        replace(prompt, is_cut_out=False),  # no object, so it is not asked for whole and on white
    ):
        assert not np.array_equal(np.asarray(make_picture(other, "cpu", ModelOptions())), picture), other
    assert replace(prompt, is_cut_out=False).asked == TEAPOT


@pytest.mark.slow
def test_sdxl_draws_too_and_a_model_of_clips_sets_it_in_motion(here, words, tiny_clip_model, tmp_path):
    sdxl = make_sdxl(tmp_path / "tiny-sdxl")
    assert (
        main([*words, "--text-model", str(sdxl), "--mesh", "--faces", "200", "--texture-size", "64", "-o", "xl"]) == 0
    )
    assert drawn("xl").std() > 10
    assert Path("xl/mesh.glb").exists()
    assert main([*words, "--text-model", str(sdxl), "--model", str(tiny_clip_model), "-o", "clip"]) == 0
    np.testing.assert_array_equal(drawn("clip"), drawn("xl"))
    assert json.loads(Path("clip/clip.json").read_text())["mv3d"]["extra"]["prompt"] == TEAPOT


@pytest.mark.slow
def test_sd3_draws_too(tmp_path):
    prompt = Prompt(TEAPOT, PromptOptions(str(make_sd3(tmp_path / "tiny-sd3")), text_steps=2), seed=7)
    steps = []
    picture = np.asarray(make_picture(prompt, "cpu", ModelOptions(), lambda *step: steps.append(step)))
    assert picture.shape == (32, 32, 3)
    assert picture.std() > 10
    assert steps == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(make_picture(prompt, "cpu", ModelOptions()), picture)
    for other in (
        replace(prompt, seed=8),
        replace(prompt, text="a blue cup"),
        replace(prompt, options=replace(prompt.options, text_guidance=1.5)),
    ):
        assert not np.array_equal(np.asarray(make_picture(other, "cpu", ModelOptions())), picture), other


@pytest.mark.slow
def test_a_text_model_comes_from_the_hub_in_half_precision_where_there_is_such_a_copy(
    here, words, tmp_path, monkeypatch
):
    source = make_sd(tmp_path / "half", variant="fp16")
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    whole = make_sd(tmp_path / "whole")
    files |= {path.relative_to(whole).as_posix(): path.read_bytes() for path in whole.rglob("*.safetensors")}
    with hub_double() as hub:
        hub.put("someone/teapots", files)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.url)  # these two are what diffusers asks
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        assert main([*words, "--text-model", "someone/teapots"]) == 0
    weights = [name for name in hub.downloads if name.endswith(".safetensors")]
    assert weights
    assert all(".fp16." in name for name in weights)
    assert load_orbit(Path("a_red_teapot_orbit")).facts.extra["prompt_model"] == "someone/teapots"


def broken(sd: Path, place: Path) -> Path:
    import shutil

    folder = Path(shutil.copytree(sd, place / "broken"))
    for path in (folder / "unet").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    return folder


@pytest.mark.slow
def test_bad_words_and_models_are_one_line_and_leave_nothing(
    here, words, sd, svd_folder, tiny_model, tmp_path_factory, capsys
):
    place = tmp_path_factory.mktemp("bad")
    (place / "empty").mkdir()
    Image.new("RGB", (40, 32), (255, 255, 255)).save(place / "cup.png")
    cases = [
        (["orbit", str(place / "cup.png"), "--prompt", "a cup"], "and a prompt are two pictures to begin with"),
        (["orbit", "--prompt", "  "], "the prompt is empty; say what is to be seen, as in 'a red teapot' (--prompt)"),
        (["orbit", "--prompt", 1001 * "a"], "the prompt has 1001 characters, over 1000"),
        (["orbit", str(place / "cup.png"), "--text-steps", "3"], "text_steps 3 is for a prompt, and there is none"),
        ([*words, "--text-steps", "0"], "text_steps 0 are outside 1 to 1000 (--text-steps)"),
        ([*words, "--text-guidance", "nan"], "text_guidance nan is outside 0 to 100 (--text-guidance)"),
        ([*words, "--num-views", "0"], "num_views 0 is outside 1 to 1000 (--num-views)"),
        ([*words, "--model", "nowhere"], "there is no model nowhere"),
        ([*words, "--lora", "nowhere"], "LoRA nowhere: there is no file nowhere"),
        ([*words, "--text-model", str(place / "empty")], "holds no model of diffusers: it has no model_index.json"),
        ([*words, "--text-model", "./nowhere"], "there is no text-to-image model ./nowhere; give a folder"),
        ([*words, "--text-model", str(svd_folder)], "is no text-to-image model that diffusers can load"),
        ([*words, "--text-model", str(tiny_model)], "is no text-to-image model that diffusers can load"),
        ([*words, "--text-model", str(broken(sd, place))], "is no text-to-image model that diffusers can load"),
        ([*words, "--matte", "plain"], "the picture of 'A red teapot!': the background cannot be removed by colour"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2, message
        line = capsys.readouterr().err.strip()
        assert message in line
        assert line.startswith("mv3d: ")
        assert "\n" not in line
        assert list(here.iterdir()) == [], message


def test_without_a_connection_the_usual_text_model_is_one_line(here, words, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["orbit", "--prompt", TEAPOT, *words[7:]]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith(
        "mv3d: there is no folder stabilityai/stable-diffusion-xl-base-1.0, and the hub does not give it"
    )
    assert "\n" not in line
    assert list(here.iterdir()) == []

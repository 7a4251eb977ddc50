"""What is behind the page, without gradio: the line of tasks, the folders, the way from a picture to a result."""

from __future__ import annotations

import base64
import json
import os
import shlex
import threading
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from diffusers import UNetSpatioTemporalConditionModel
from PIL import Image, ImageDraw

from mv3d.app.adapters import find_loras, unfit_pairs
from mv3d.app.asking import options_from, prompt_from, uploaded
from mv3d.app.downloads import DOWNLOADS, file_of, offered
from mv3d.app.flow import Workshop
from mv3d.app.masks import save_brushed, save_own
from mv3d.app.results import PageResult, Results
from mv3d.app.show import matte_behind
from mv3d.app.tasks import TaskQueue
from mv3d.app.work import command_of, cut_out_of
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.model.coarse_stage import find_object
from mv3d.model.lora import add_lora, lora_tensors, save_lora, targets_pattern
from mv3d.model.lora_file import LoraFacts
from mv3d.options import OrbitOptions
from mv3d.orbit import load_orbit
from tests.mv3d.test_lora import make_unet
from tests.mv3d.text_models import make_sd
from tests.tiny import TINY_UNET

SECONDS = {"loading": 1.0, "views": 1.0}


def draw_picture(path: Path, size: tuple[int, int] = (80, 60)) -> Path:
    width, height = size
    picture = Image.new("RGB", size, (255, 255, 255))
    ImageDraw.Draw(picture).rectangle((width // 4, height // 5, width // 2, 4 * height // 5), fill=(150, 80, 20))
    picture.save(path)
    return path


def as_url(picture: Image.Image) -> str:
    data = BytesIO()
    picture.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


@pytest.fixture
def workshop(tmp_path: Path, tiny_model: Path) -> Workshop:
    return Workshop(Results(tmp_path / "results"), (str(tiny_model),))


@pytest.fixture
def result(tmp_path: Path, workshop: Workshop) -> PageResult:
    return workshop.results.visitor(None).add(draw_picture(tmp_path / "cup.png"), "cup.png")


# -------------------------------------------------------------------------------------------------
# The line.


def test_tasks_are_done_one_by_one_in_their_order_and_know_their_place():
    queue, begin, done = TaskQueue(), threading.Event(), []
    first = queue.submit("a", lambda _: begin.wait(10), SECONDS)
    others = [queue.submit(name, lambda _, name=name: done.append(name), SECONDS) for name in "bcd"]
    while first.state == "waiting":
        first.wait(0.01)
    assert [queue.view(task).ahead for task in others] == [1, 2, 3]
    queue.cancel("c")
    assert [queue.view(task).ahead for task in others] == [1, 0, 2]
    begin.set()
    assert others[2].wait(10)
    assert done == ["b", "d"]
    assert [task.state for task in others] == ["done", "cancelled", "done"]


def test_a_task_says_how_far_it_is_and_stops_at_its_next_step():
    queue, reached, go_on = TaskQueue(), threading.Event(), threading.Event()

    def work(on_step):
        on_step("loading", 1, 1)
        on_step("views", 1, 4)
        reached.set()
        go_on.wait(10)
        on_step("views", 2, 4)
        raise AssertionError("it went on")

    task = queue.submit("a", work, SECONDS)
    assert reached.wait(10)
    view = queue.view(task)
    assert (view.state, view.stage) == ("working", "views")
    assert 0 < view.share < 1
    assert view.seconds_left > 0
    queue.cancel("a")
    assert task.is_unwanted
    go_on.set()
    assert task.wait(10)
    assert task.state == "cancelled"


def test_a_task_that_fails_does_not_stop_the_line():
    queue = TaskQueue()
    bad = queue.submit("a", lambda _: 1 / 0, SECONDS)
    good = queue.submit("b", lambda _: 7, SECONDS)
    assert good.wait(10)
    assert (bad.state, good.state, good.result) == ("failed", "done", 7)
    assert isinstance(bad.error, ZeroDivisionError)


# -------------------------------------------------------------------------------------------------
# Folders.


@pytest.mark.parametrize(
    ("called", "kept"),
    [
        ("cup.png", "cup.png"),
        ("../../etc/cup.png", "cup.png"),
        ("C:\\pictures\\my cup.jpg", "my cup.jpg"),
        ("-o.png", "o.png"),
        (".hidden", "hidden"),
        ("$(reboot);.png", "_(reboot)_.png"),
        ("", "picture"),
        (200 * "a" + ".png", 50 * "a" + ".png"),
    ],
)
def test_a_picture_keeps_its_name_as_far_as_it_is_safe(tmp_path, called, kept):
    result = Results(tmp_path / "results").visitor(None).add(draw_picture(tmp_path / "x.png"), called)
    assert result.picture.parent == result.folder / "picture"
    assert result.picture.name == kept
    assert result.picture.read_bytes() == (tmp_path / "x.png").read_bytes()


@pytest.mark.parametrize("name", ["..", "../" + 32 * "0", "", 31 * "a", 33 * "a", 32 * "A", None, 7, ["a"]])
def test_nobody_is_known_by_what_is_no_secret(tmp_path, name):
    visitor = Results(tmp_path).visitor(name)
    assert visitor.name != name
    assert visitor.folder.parent == tmp_path
    assert len(visitor.name) == 32


@pytest.mark.parametrize("name", ["..", "../x", "20261129-120000-abcdef", "", "picture"])
def test_what_is_not_a_result_of_the_visitor_is_not_found(tmp_path, workshop, result, name):
    with pytest.raises(Mv3dError, match="there is no result"):
        workshop.results.visitor(result.folder.parent.name).find(name)
    with pytest.raises(Mv3dError, match="there is no result"):  # somebody else
        workshop.results.visitor(None).find(result.name)


def test_only_what_was_uploaded_is_taken(tmp_path):
    (tmp_path / "uploads").mkdir()
    inside = draw_picture(tmp_path / "uploads/a.png")
    outside = draw_picture(tmp_path / "b.png")
    (tmp_path / "uploads/link.png").symlink_to(outside)
    assert uploaded(str(inside), tmp_path / "uploads") == inside.resolve()
    for path in (outside, tmp_path / "uploads/../b.png", tmp_path / "uploads/link.png", tmp_path / "uploads", "\0", 3):
        with pytest.raises(Mv3dError, match="did not arrive"):
            uploaded(path if isinstance(path, int) else str(path), tmp_path / "uploads")


def test_what_was_never_finished_goes_after_a_day(workshop, result, tmp_path):
    new = workshop.results.visitor(None).add(result.picture, "new.png")
    done = workshop.results.visitor(None).add(result.picture, "done.png")
    done.orbit.mkdir()
    (done.orbit / "transforms.json").touch()
    for old in (result, done):
        os.utime(old.folder, (0, 0))
    workshop.results.tidy()
    assert [one.folder.exists() for one in (result, new, done)] == [False, True, True]


# -------------------------------------------------------------------------------------------------
# What is asked for.


def test_options_are_those_of_the_command_line_as_far_as_they_are_offered(workshop):
    asked = options_from(workshop, {"seed": 3.0, "elevation": "", "num_views": 5, "steps": None})
    assert asked == OrbitOptions(seed=3, num_views=5, mesh=True, model=workshop.models[0])
    assert options_from(workshop, {"elevation": "12.5", "steps": "4"}).elevation == 12.5
    for bad, message in (
        ({"model": "someone/else"}, "not offered here"),
        ({"seed": 1.5}, "no whole number"),
        ({"num_views": "many"}, "num_views many is no number"),
        ({"elevation": "low"}, "elevation low is no number"),
        ({"guidance": "nan"}, "guidance nan is no number"),
        ({"steps": True}, "steps True is no number"),
        ({"matte": "magic"}, "choose one of auto"),
    ):
        with pytest.raises(Mv3dError, match=message):
            options_from(workshop, bad)


def test_loras_are_used_as_far_as_their_sliders_say(tmp_path):
    workshop = Workshop(Results(tmp_path), loras=("left.safetensors", "right.safetensors"))
    assert options_from(workshop, {}, [0.0, 0.5]).lora == ("right.safetensors:0.5",)
    assert options_from(workshop, {}, [0, 0]).lora == ()


@pytest.mark.slow
def test_camera_motions_are_sliders_of_the_models_that_take_them(tmp_path, tiny_clip_model, stock):
    (tmp_path / "motions").mkdir()
    zoom = make_motion(stock, tmp_path / "motions/zoom.safetensors")
    wide = UNetSpatioTemporalConditionModel(**TINY_UNET | {"block_out_channels": (64, 64)})
    other = make_motion(wide, tmp_path / "wide.safetensors")
    assert find_loras([str(tmp_path / "motions"), str(other)]) == (str(zoom), str(other))
    models = (str(tiny_clip_model),)
    assert unfit_pairs(models, (str(zoom),)) == frozenset()
    with pytest.raises(Mv3dError, match="wide.safetensors fits none of"):
        unfit_pairs(models, (str(zoom), str(other)))
    with pytest.raises(Mv3dError, match="there is no LoRA in"):
        find_loras([str(tiny_clip_model)])

    loras = (str(other), str(zoom))
    workshop = Workshop(Results(tmp_path / "r"), models, loras, frozenset({(models[0], str(other))}))
    clips = []
    for scale in (0.0, 1.5):
        options = options_from(workshop, {"num_views": 3, "steps": 1, "matte": "plain"}, [scale, scale])
        result = workshop.results.visitor(None).add(draw_picture(tmp_path / "cup.png"), "cup.png")
        updates = list(workshop.make("me", result, options))
        assert updates[-1]["status"]["state"] == "done"
        assert [update["turn"]["kind"] for update in updates if "turn" in update] == ["clip"]
        assert (f"--lora {zoom}:1.5" in command_of(result, options)) == bool(scale)
        clips.append((result.orbit / "frames/002.png").read_bytes())
    assert clips[0] != clips[1]


def make_motion(stock: UNetSpatioTemporalConditionModel, path: Path) -> Path:
    """A LoRA of random values on temporal attention, as of one motion of the camera."""
    unet = make_unet(stock)
    add_lora(unet, 2, 3.0, "temporal_attention")
    with torch.no_grad():
        for value in lora_tensors(unet.state_dict(), "default").values():
            value.normal_(generator=torch.Generator().manual_seed(len(path.stem)))
    save_lora(unet, path, LoraFacts("base", "CC0-1.0", 2, 3.0, targets_pattern("temporal_attention")))
    return path


def test_the_command_names_what_is_not_usual(result):
    options = OrbitOptions(seed=4, mesh=True, elevation=12.0, lora=("a.safetensors:0.5",), matte="plain")
    words = shlex.split(command_of(result, options))
    assert words[:3] == ["mv3d", "orbit", "cup.png"]
    assert sorted(" ".join(words[3:]).replace(" --", "\n--").splitlines()) == [
        "--elevation 12",
        "--lora a.safetensors:0.5",
        "--matte plain",
        "--mesh",
        "--seed 4",
    ]
    save_brushed(result, as_url(Image.new("L", (8, 6), 255)))
    assert command_of(result, options).endswith("--mask mask.png")
    assert "matte" not in command_of(result, options)


# -------------------------------------------------------------------------------------------------
# From a picture to a result.


@pytest.mark.slow
def test_a_picture_becomes_a_result_in_steps_and_the_command_makes_the_same_pixels(
    tmp_path, workshop, result, monkeypatch
):
    options = options_from(workshop, {"seed": 3, "num_views": 4, "matte": "plain"})
    found = []
    monkeypatch.setattr("mv3d.generate.find_object", lambda *given: found.append(given) or find_object(*given))
    updates = list(workshop.make("me", result, options))
    assert len(found) == 1  # the turntable and the sharp views are of one surface
    assert [name for update in updates for name in update if name != "status"] == [
        *("picture", "turn", "turn", "finished")
    ]
    assert updates[-1]["status"]["state"] == "done"  # together with what is finished
    assert "finished" in updates[-1]
    turns = [update["turn"] for update in updates if "turn" in update]
    assert [(turn["kind"], len(turn["frames"])) for turn in turns] == [("preview", 4), ("views", 4)]
    assert workshop.results.visitor(result.folder.parent.name).finished() == [result]

    command = json.loads((result.orbit / "transforms.json").read_text())["mv3d"]["command"]
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command)[1:], "-o", "same"]) == 0
    np.testing.assert_array_equal(load_orbit(tmp_path / "same").frames, load_orbit(result.orbit).frames)
    assert (tmp_path / "same/mesh.glb").read_bytes() == (result.orbit / "mesh.glb").read_bytes()
    assert matte_behind(result) == "plain"
    # Another seed, side by side.
    other = workshop.results.visitor(result.folder.parent.name).again(result)
    assert list(workshop.vary("me", result, [other], options))[-1]["status"]["state"] == "done"
    assert "--seed 4" in json.loads((other.orbit / "transforms.json").read_text())["mv3d"]["command"]
    assert not np.array_equal(load_orbit(other.orbit).frames, load_orbit(result.orbit).frames)


@pytest.mark.slow
def test_words_become_a_picture_and_a_result_and_the_command_makes_the_same_pixels(tmp_path, tiny_model, monkeypatch):
    workshop = Workshop(Results(tmp_path / "results"), (str(tiny_model),), text_model=str(make_sd(tmp_path / "sd")))
    options = options_from(workshop, {"seed": 4, "num_views": 2, "matte": "alpha", "mesh": False})
    visitor = workshop.results.visitor(None)
    result = visitor.add_words(prompt_from(workshop, "A red teapot!", options))
    updates = list(workshop.make("me", result, options))
    assert updates[-1]["status"]["state"] == "done"
    texts = [update["status"]["text"] for update in updates if "status" in update]
    assert texts.index("Drawing what you say") < texts.index("Cutting it out")
    assert result.picture.name == "a_red_teapot.png"
    command = json.loads((result.orbit / "transforms.json").read_text())["mv3d"]["command"]
    assert command.startswith("mv3d orbit --prompt 'A red teapot!' --text-model")
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command)[1:], "-o", "same"]) == 0
    np.testing.assert_array_equal(load_orbit(tmp_path / "same").frames, load_orbit(result.orbit).frames)
    # With another seed it is the same picture that is turned.
    other = visitor.again(result)
    assert command_of(other, replace(options, seed=5)).startswith("mv3d orbit a_red_teapot.png ")
    assert list(workshop.vary("me", result, [other], options))[-1]["status"]["state"] == "done"
    assert (other.orbit / "prompt.png").read_bytes() == (result.orbit / "prompt.png").read_bytes()
    for offered_here, words, message in (
        (workshop, " ", "the prompt is empty"),
        (replace(workshop, text_model=None), "a", "not offered"),
    ):
        with pytest.raises(Mv3dError, match=message):
            prompt_from(offered_here, words, options)


@pytest.mark.slow
def test_downloads_are_opened_by_others(workshop, result, tmp_path):
    with pytest.raises(Mv3dError, match="make it first"):
        file_of(result, "video")
    list(workshop.make("me", result, options_from(workshop, {"num_views": 3})))
    there = {one.key for one in offered(result)}
    assert {"video", "frames", "glb", "stl"} <= there <= set(DOWNLOADS) - {"mask"}
    path, called = file_of(result, "frames")
    assert called == "cup_orbit.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert len(load_orbit(tmp_path / "cup_orbit")) == 3
    for key in ("glb", "stl"):
        path, called = file_of(result, key)
        assert called == f"cup.{key}"
        assert len(trimesh.load(path, force="mesh").faces) > 10
    for key, message in (("../../x", "there is no download"), ("mask", "without a mask")):
        with pytest.raises(Mv3dError, match=message):
            file_of(result, key)


def test_a_picture_that_cannot_be_used_is_one_line_without_folders(tmp_path, workshop):
    (tmp_path / "notes.txt").write_text("no picture")
    result = workshop.results.visitor(None).add(tmp_path / "notes.txt", "notes.txt")
    last = list(workshop.make("me", result, options_from(workshop, {})))[-1]["status"]
    assert last["state"] == "error"
    assert last["text"].startswith("notes.txt is no picture mv3d can read")
    assert str(tmp_path) not in last["text"]
    assert "\n" not in last["text"]


@pytest.mark.slow
def test_what_is_cancelled_says_so_and_what_is_begun_anew_says_nothing_more(workshop, result):
    begin = threading.Event()
    workshop.queue.submit("somebody", lambda _: begin.wait(20), SECONDS)
    options = options_from(workshop, {"num_views": 2})
    first = workshop.make("me", result, options)
    assert next(update for update in first if update.get("status", {}).get("state") == "waiting")["status"]["text"] == (
        "Waiting, 1 ahead of you"
    )
    workshop.cancel("me")
    assert next(first)["status"]["state"] == "cancelled"
    second = workshop.make("me", result, options)
    next(update for update in second if update.get("status", {}).get("state") == "waiting")
    third = workshop.make("me", result, options)
    next(third)
    assert list(second) == []
    begin.set()
    assert list(third)[-1]["status"]["state"] == "done"


# -------------------------------------------------------------------------------------------------
# Masks.


def test_a_brushed_mask_is_of_the_pictures_size_and_cuts_it_out(tmp_path, workshop):
    picture = draw_picture(tmp_path / "big.png", (1600, 1200))
    result = workshop.results.visitor(None).add(picture, "big.png")
    brushed = Image.new("L", (1024, 768), 0)
    ImageDraw.Draw(brushed).rectangle((512, 0, 1023, 767), fill=255)
    save_brushed(result, as_url(brushed))
    with Image.open(result.mask or "") as mask:
        assert mask.size == (1600, 1200)
    alpha = cut_out_of(result, OrbitOptions())[1][..., 3]
    assert alpha[:, :790].max() == 0
    assert alpha[:, 810:].min() == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:text/html;base64,AAAA", "cannot be read"),
        ("data:image/png;base64,!!!", "cannot be read"),
        ("data:image/png;base64,AAAA", "cannot be read"),
        (as_url(Image.new("L", (8, 6), 0)), "is empty"),
    ],
)
def test_a_brushed_mask_that_is_none_is_refused_and_not_kept(result, url, message):
    with pytest.raises(Mv3dError, match=message):
        save_brushed(result, url)
    assert result.mask is None


def test_a_mask_file_is_taken_as_it_is_or_refused(result, tmp_path):
    Image.new("L", (24, 24), 255).save(tmp_path / "small.png")
    with pytest.raises(Mv3dError, match="give a mask of the picture's size"):
        save_own(result, tmp_path / "small.png")
    assert result.mask is None
    Image.new("L", (80, 60), 255).save(tmp_path / "mask.png")
    save_own(result, tmp_path / "mask.png")
    assert result.mask is not None
    assert result.mask.read_bytes() == (tmp_path / "mask.png").read_bytes()

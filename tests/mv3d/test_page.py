"""The page in a real browser, served by ``mv3d web`` in a process of its own, with the tiny model.

Needs the extra `app`, playwright, and a Chromium: playwright's own, or the system's.
"""

from __future__ import annotations

import gc
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from mv3d.cli import main
from mv3d.orbit import load_orbit

pytest.importorskip("gradio", reason="the extra app is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    # gradio, once imported, leaves event loops to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 600_000  # of machines that are busy with other things
BROWN, BLUE = (150, 80, 20), (30, 60, 160)


class Server:
    """``mv3d web`` on a free port, and what it keeps."""

    def __init__(self, out: Path, model: Path, log: Path) -> None:
        self.out, self.model, self.log = out, model, log
        self.start()

    def start(self, port: int = 0) -> None:
        words = ["web", "--no-browser", "--port", str(port), "--model", str(self.model), "-o", str(self.out)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mv3d.cli", *words], stdout=log, stderr=subprocess.STDOUT, env=env
            )
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        self.url, self.port = found[0], int(found[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    server = Server(folder / "results", tiny_model, folder / "log.txt")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        if found is None:
            pytest.skip("there is no Chromium: playwright install chromium, or the system's package")
        # WebGL in software for the mesh, and nothing else of a GPU: that process takes precedence over the server.
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        flags += ["--disable-gpu-compositing", "--disable-gpu-rasterization"]
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as somebody new. At the end no script may have failed, and nobody but the server been asked."""
    contexts, elsewhere, errors = [], [], []

    def open_page(width: int = 1280, height: int = 800) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: elsewhere.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector(".m-picture")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in elsewhere if not url.startswith((server.url, "data:", "blob:"))] == []


def draw_cup(path: Path, size: tuple[int, int] = (120, 90)) -> Path:
    """A brown box, and a blue one beside it, on white."""
    (width, height), picture = size, Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((width // 5, height // 4, width // 2, 3 * height // 4), fill=BROWN)
    pen.rectangle((6 * width // 10, height // 4, 8 * width // 10, 3 * height // 4), fill=BLUE)
    picture.save(path)
    return path


def status(page: Any, state: str) -> str:
    """Wait for a state; returns what is said."""
    page.wait_for_selector(f".m-status[data-state={state}]", state="attached")
    return page.inner_text(".m-text")


def set_option(page: Any, name: str, value: int) -> None:
    """Set one of the settings, which are shown for it and from then on."""
    field = page.locator(f"#m-{name} input, #m-{name} textarea")
    if not field.is_visible():
        page.get_by_role("button", name="Settings").click()
    field.fill(str(value))
    field.blur()


def results_of(server: Server) -> list[Path]:
    """All results of all visitors, the oldest first."""
    return sorted(server.out.glob("*/2*"), key=lambda path: path.name)


def refused(url: str) -> int:
    try:
        with urlopen(url) as answer:
            raise AssertionError(f"{url}: {answer.read(80)!r}")
    except HTTPError as error:
        return error.code


# -------------------------------------------------------------------------------------------------


def test_a_picture_becomes_a_turntable_a_mesh_and_downloads_that_others_open(visit, server, tmp_path, monkeypatch):
    page = visit()
    set_option(page, "seed", 5)
    set_option(page, "num_views", 6)
    page.set_input_files(".m-file", draw_cup(tmp_path / "cup.png"))
    page.wait_for_selector(".m-stage[data-state=preview], .m-stage[data-state=views]")
    assert status(page, "done").startswith("Ready in")
    page.wait_for_selector(".m-stage[data-state=views]")

    # Dragged to the right, the object turns to the right: the camera goes back to smaller azimuths.
    stage = page.locator(".m-stage")
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    before = int(stage.get_attribute("data-frame"))
    page.mouse.move(x + 1.1 * box["width"] / 3, y, steps=4)
    page.mouse.up()
    assert (before - int(stage.get_attribute("data-frame"))) % 6 == 2
    stage.press("ArrowLeft")
    assert (before - int(stage.get_attribute("data-frame"))) % 6 == 1

    page.get_by_role("tab", name="Mesh").click()
    assert wait_for_colours(page, ".m-mesh canvas", tmp_path / "mesh.png") > 0.01
    page.get_by_role("tab", name="Turntable").click()

    keys = [link.get_attribute("data-key") for link in page.locator(".m-downloads a").all()]
    assert {"video", "frames", "glb", "stl"} <= set(keys)
    taken = {}
    for key in keys:
        with page.expect_download() as waited:
            page.click(f".m-downloads a[data-key={key}]")
        taken[key] = tmp_path / "taken" / waited.value.suggested_filename
        waited.value.save_as(taken[key])
    assert [taken[key].name for key in ("video", "frames", "glb", "stl")] == [
        *("cup.mp4", "cup_orbit.zip", "cup.glb", "cup.stl")
    ]
    check_video(taken["video"], 6)
    for key in ("glb", "stl"):
        assert len(trimesh.load(taken[key], force="mesh").faces) > 10
    if "usdz" in taken:
        from pxr import Usd, UsdGeom

        stage_of_usd = Usd.Stage.Open(str(taken["usdz"]))
        assert any(prim.IsA(UsdGeom.Mesh) for prim in stage_of_usd.Traverse())
    if "blend" in taken:
        assert taken["blend"].read_bytes()[:7] in (b"BLENDER", b"\x28\xb5\x2f\xfd" + taken["blend"].read_bytes()[4:7])
    with zipfile.ZipFile(taken["frames"]) as archive:
        archive.extractall(tmp_path / "unpacked")

    # The command that is shown makes the same pixels.
    words = shlex.split(page.inner_text(".m-command code"))
    assert words[:3] == ["mv3d", "orbit", "cup.png"]
    monkeypatch.chdir(tmp_path)
    assert main([*words[1:], "-o", "same"]) == 0
    frames = load_orbit(tmp_path / "unpacked/cup_orbit").frames
    np.testing.assert_array_equal(load_orbit(tmp_path / "same").frames, frames)
    assert (tmp_path / "same/mesh.glb").read_bytes() == taken["glb"].read_bytes()


def wait_for_colours(page: Any, part: str, path: Path) -> float:
    """How much of a part of the page is coloured, as the background is not; WebGL in software takes its time."""
    page.wait_for_selector(part)
    for _ in range(60):
        page.locator(part).screenshot(path=path)
        with Image.open(path) as shown:
            share = float((np.ptp(np.asarray(shown.convert("RGB")).astype(int), axis=-1) > 60).mean())
        if share > 0.01:
            return share
        page.wait_for_timeout(1000)
    return 0.0


def check_video(path: Path, frames: int) -> None:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    next(reader)
    count = sum(1 for _ in reader)
    reader.close()
    assert count == frames


def test_the_cut_out_is_corrected_with_a_brush_and_by_a_mask_file(visit, server, tmp_path):
    page = visit()
    set_option(page, "num_views", 2)
    page.set_input_files(".m-file", draw_cup(tmp_path / "two.png"))
    status(page, "done")
    page.click("[data-do=erase]")
    page.locator(".m-size").fill("80")
    box = page.locator(".m-canvas canvas").bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    page.mouse.move(*at(0.7, 0.2))
    page.mouse.down()
    page.mouse.move(*at(0.7, 0.8), steps=6)
    page.mouse.up()
    page.click("[data-do=undo]")
    assert not page.locator("[data-do=apply]").is_visible()
    page.mouse.move(*at(0.7, 0.2))
    page.mouse.down()
    page.mouse.move(*at(0.7, 0.8), steps=6)
    page.mouse.up()
    count = len(results_of(server))
    page.click("[data-do=apply]")
    page.wait_for_function(
        "n => document.querySelectorAll('.m-strip button').length === n && "
        "document.querySelector('.m-status').dataset.state === 'done'",
        arg=2,
    )
    assert len(results_of(server)) == count + 1
    brushed = results_of(server)[-1]
    with Image.open(brushed / "mask.png") as mask:
        assert mask.size == (120, 90)
        seen = np.asarray(mask)
    assert seen[45, 84] < 40  # the blue box is brushed away
    assert seen[45, 42] > 215  # and the brown one stays
    assert "--mask mask.png" in page.inner_text(".m-command code")
    with Image.open(brushed / "orbit/frames/000.png") as first:
        pixels = np.asarray(first).reshape(-1, 4)
    colours = pixels[pixels[:, 3] > 230, :3].astype(int)
    assert len(colours) > 50
    assert np.abs(colours - BROWN).max(axis=1).mean() < 30

    own = Image.new("L", (120, 90), 0)
    ImageDraw.Draw(own).rectangle((66, 20, 104, 70), fill=255)
    own.save(tmp_path / "mine.png")
    Image.new("L", (24, 18), 255).save(tmp_path / "small.png")
    page.set_input_files(".m-maskfile", tmp_path / "small.png")
    assert "give a mask of the picture's size" in status(page, "error")
    page.set_input_files(".m-maskfile", tmp_path / "mine.png")
    page.wait_for_function("document.querySelectorAll('.m-strip button').length === 3")
    masks = [
        np.asarray(Image.open(path).convert("L")) for place in results_of(server) for path in place.glob("mask.png")
    ]
    assert any(np.array_equal(mask, own) for mask in masks)


def test_what_is_no_picture_gets_one_clear_line_and_the_page_lives_on(visit, tmp_path):
    page = visit()
    set_option(page, "num_views", 2)
    (tmp_path / "notes.txt").write_text("no picture")
    whole = draw_cup(tmp_path / "cup.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (8200, 8200)).save(tmp_path / "huge.png")
    for name, message in (
        ("notes.txt", "notes.txt is no picture mv3d can read"),
        ("broken.png", "broken.png is damaged"),
        ("huge.png", "huge.png is 8200x8200, over 64 megapixels"),
    ):
        page.set_input_files(".m-file", tmp_path / name)
        page.wait_for_function("text => document.querySelector('.m-text').textContent.startsWith(text)", arg=message)
        assert "\n" not in status(page, "error")
        assert page.locator(".m-status").count() == 1
        assert page.locator(".toast-body").count() == 0  # one message, not two
    draw_cup(tmp_path / "sixty.png", (10_000, 6_000))  # within the limit
    page.set_input_files(".m-file", tmp_path / "sixty.png")
    page.wait_for_selector(".m-picture[data-state=shown]")
    page.set_input_files(".m-file", tmp_path / "cup.png")  # what runs gives way, if it is not done yet
    page.wait_for_selector(".m-strip button[title=cup]")
    status(page, "done")


def test_two_visitors_wait_for_each_other_and_see_their_own_only(visit, server, tmp_path):
    one, other = visit(), visit()
    for page, name in ((one, "first"), (other, "second")):
        set_option(page, "num_views", 2)
        set_option(page, "steps", 100)
        draw_cup(tmp_path / f"{name}.png")
    one.set_input_files(".m-file", tmp_path / "first.png")
    one.wait_for_selector(".m-stage[data-state=preview]")
    one.wait_for_selector(".m-status[data-state=working]")
    other.set_input_files(".m-file", tmp_path / "second.png")
    other.wait_for_selector(".m-status[data-state=waiting]")
    assert other.inner_text(".m-text") == "Waiting, 1 ahead of you"
    for page, name in ((one, "first"), (other, "second")):
        status(page, "done")
        cards = page.locator(".m-strip button")
        assert [card.get_attribute("title") for card in cards.all()] == [name]
    # What is somebody else's, or no result at all, is not given away.
    mine, others = (page.get_attribute(".m-downloads a", "href").split("/")[1] for page in (one, other))
    result = one.get_attribute(".m-downloads a", "href").split("/")[2]
    with urlopen(f"{server.url}/files/{mine}/{result}/glb") as answer:
        assert answer.read(4) == b"glTF"
    theirs = server.out / mine / result / "orbit" / "mesh.glb"
    for path in (
        f"files/{others}/{result}/glb",
        f"files/{mine}/{quote('../' + result, safe='')}/glb",
        f"files/{mine}/{result}/{quote('../picture/first.png', safe='')}",
        f"files/{quote('../' + server.out.name + '/' + mine, safe='')}/{result}/glb",
        f"gradio_api/file={theirs}",
        "gradio_api/file=/etc/passwd",
        f"gradio_api/file={ROOT}/pyproject.toml",
        f"gradio_api/file={server.out}/../log.txt",
    ):
        assert refused(f"{server.url}/{path}") in (403, 404), path


def test_cancel_ends_it_soon_and_the_next_picture_is_made(visit, tmp_path):
    page = visit()
    set_option(page, "num_views", 2)
    set_option(page, "steps", 1000)
    page.set_input_files(".m-file", draw_cup(tmp_path / "slow.png"))
    page.wait_for_selector(".m-stage[data-state=preview]")
    page.wait_for_function("document.querySelector('.m-text').textContent === 'Sharpening the views'")
    assert re.fullmatch(r"\d+ s left", page.inner_text(".m-left"))
    page.click(".m-cancel")
    assert status(page, "cancelled") == "Cancelled"
    assert page.locator(".m-stage[data-state=preview]").count() == 1  # the surface stays, to be turned
    set_option(page, "steps", 1)
    page.get_by_role("button", name="Make it again").click()
    status(page, "done")


# The end of the stream of answers comes a second late.
LATE_END = """
const fetched = window.fetch;
window.fetch = async (...asked) => {
  const answer = await fetched(...asked);
  if (!String(asked[0].url || asked[0]).includes("/queue/data")) return answer;
  const decoder = new TextDecoder(), encoder = new TextEncoder();
  const late = new TransformStream({
    async transform(chunk, out) {
      for (const message of decoder.decode(chunk, { stream: true }).split(/(?<=\\n\\n)/)) {
        if (message.includes("close_stream")) await new Promise((go) => setTimeout(go, 1000));
        out.enqueue(encoder.encode(message));
      }
    },
  });
  return new Response(answer.body.pipeThrough(late), answer);
};
"""


def test_what_is_asked_while_an_answer_ends_is_answered(visit, server, tmp_path):
    page = visit()
    page.context.add_init_script(LATE_END)
    page.goto(server.url)
    set_option(page, "num_views", 2)
    page.set_input_files(".m-file", draw_cup(tmp_path / "cup.png"))
    status(page, "done")
    page.get_by_role("button", name="Make it again").click()
    page.wait_for_function("document.querySelectorAll('.m-strip button').length === 2")
    status(page, "done")
    page.set_default_timeout(60_000)  # what is not answered is soon known
    for k in (0, 1) * 5:
        page.evaluate("k => document.querySelectorAll('.m-strip button')[k].click()", k)
        page.wait_for_selector(f".m-strip button[aria-pressed=true]:nth-child({k + 1})")


def test_a_restart_loses_nothing_that_was_finished(visit, server, tmp_path):
    page = visit()
    set_option(page, "num_views", 3)
    page.set_input_files(".m-file", draw_cup(tmp_path / "kept.png"))
    status(page, "done")
    page.get_by_role("button", name="3 more seeds").click()
    page.wait_for_function("document.querySelectorAll('.m-strip button').length === 4")
    status(page, "done")
    server.stop()
    server.start(server.port)
    page.goto(server.url)
    page.wait_for_function("document.querySelectorAll('.m-strip button').length === 4")
    assert {card.inner_text() for card in page.locator(".m-strip button").all()} == {f"seed {k}" for k in range(4)}
    page.locator(".m-strip button", has_text="seed 2").click()
    page.wait_for_selector(".m-stage[data-state=views]")
    page.wait_for_selector(".m-downloads a")
    assert "--seed 2" in page.inner_text(".m-command code")
    assert page.locator('.m-strip button[aria-pressed="true"]').inner_text() == "seed 2"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_the_page_fits_its_window(visit, tmp_path, width, height):
    page = visit(width, height)
    set_option(page, "num_views", 2)
    page.set_input_files(".m-file", draw_cup(tmp_path / "cup.png"))
    status(page, "done")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in (".m-picture", ".m-stage", ".m-downloads", ".m-strip", ".m-command"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0, part
        assert box["x"] + box["width"] <= width + 1, part


def test_a_line_for_words_and_sliders_are_there_where_they_are_offered(tmp_path):
    from mv3d.app.flow import Workshop
    from mv3d.app.page import build_page
    from mv3d.app.results import Results

    def parts(workshop: Workshop) -> dict[str, Any]:
        return {part.elem_id: part for part in build_page(workshop, tmp_path).blocks.values() if part.elem_id}

    loras, models = ("left.safetensors", "zoom.safetensors"), ("orbits", "clips")
    unfit = frozenset(("orbits", lora) for lora in loras[1:])
    offered = parts(Workshop(Results(tmp_path), models, loras, unfit, text_model="some/model"))
    assert [offered[f"m-lora-{k}"].visible for k in range(2)] == [True, False]  # of the first model
    assert "m-words" in offered
    assert not {"m-words", "m-lora-0"} & parts(Workshop(Results(tmp_path))).keys()
    gc.collect()  # here, where what gradio leaves open is let pass


def test_the_example_of_the_rest_api(server, tmp_path, capsys):
    example = runpy.run_path(str(ROOT / "examples/06_ask_the_page.py"))["main"]
    example(server.url, draw_cup(tmp_path / "cup.png"), tmp_path / "out", seed=2)
    assert {"cup.mp4", "cup_orbit.zip", "cup.glb", "cup.stl"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(trimesh.load(tmp_path / "out/cup.glb", force="mesh").faces) > 10
    with zipfile.ZipFile(tmp_path / "out/cup_orbit.zip") as archive:
        assert json.loads(archive.read("cup_orbit/transforms.json"))["mv3d"]["seed"] == 2


def test_the_rest_api_reads_no_files_of_the_server_and_says_what_is_wrong(server, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server.url, verbose=False)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(AppError, match="no picture mv3d can read"):
        client.predict(handle_file(tmp_path / "notes.txt"), api_name="/orbit")
    with pytest.raises(AppError, match="not offered here"):
        client.predict(handle_file(draw_cup(tmp_path / "a.png")), model="someone/else", api_name="/orbit")
    for path in ("/etc/passwd", str(ROOT / "assets/chair.png"), "../x.png", ""):
        with pytest.raises(AppError, match="did not arrive"):
            client.predict({"path": path}, api_name="/orbit")

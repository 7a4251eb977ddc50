"""Models by their names on the hub, from a cache laid out as its client does, and without a connection."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import save_file

from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import load_model, resolve_model
from tests.mv3d.test_stability import make_state

CARD = "---\nlicense: other\nlicense_name: sv3d-nc\nlicense_link: LICENSE.md\n---\n# SV3D\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, which has no connection."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, repository: str, files: dict[str, Path | str]) -> Path:
    """Lay a repository out as the client does, files as links to blobs; returns the snapshot."""
    root, commit = cache / f"models--{repository.replace('/', '--')}", "1" * 40
    snapshot = root / "snapshots" / commit
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(name.encode()).hexdigest()
        if isinstance(content, Path):
            shutil.copyfile(content, blob)
        else:
            blob.write_text(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


def test_sv3d_is_found_where_it_lies_on_the_hub(cache, tmp_path):
    """Its repository holds two single files, a card and the licence at its root, and no model_index.json."""
    for name in ("SV3D_u", "SV3D_p"):
        save_file(make_state(name), tmp_path / f"{name.lower()}.safetensors")
    snapshot = put(
        cache,
        "stabilityai/sv3d",
        {
            "README.md": CARD,
            "LICENSE.md": "Terms.",
            **{name: tmp_path / name for name in ("sv3d_u.safetensors", "sv3d_p.safetensors")},
        },
    )
    model = load_model("stabilityai/sv3d")
    assert (model.facts.name, model.facts.licence) == ("sv3d_p", "sv3d-nc, LICENSE.md")
    assert model.unet.config["pose_embed_dim"] == 512  # the one of the two that is told cameras
    assert model.facts.turns
    named = resolve_model("stabilityai/sv3d/sv3d_u.safetensors")
    assert named == snapshot / "sv3d_u.safetensors"
    assert resolve_model(snapshot) == snapshot / "sv3d_p.safetensors"  # as a folder of one's own
    with pytest.raises(Mv3dError, match="stabilityai/sv3d on the hub has no file sv4d.safetensors"):
        resolve_model("stabilityai/sv3d/sv4d.safetensors")


def test_a_repository_in_the_diffusers_layout_stays_a_folder(cache):
    files = {
        "model_index.json": "{}",
        "unet/config.json": "{}",
        "unet/model.fp16.safetensors": "",
        "svd.safetensors": "",
    }
    snapshot = put(cache, "someone/svd", files)
    assert resolve_model("someone/svd") == snapshot
    assert resolve_model(snapshot) == snapshot


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": CARD}, "someone/model holds no model: neither model_index.json nor a .safetensors file"),
        (
            {"b.safetensors": "", "a.safetensors": ""},
            "holds several models: a.safetensors, b.safetensors; name one, as in someone/model/a.safetensors",
        ),
    ],
)
def test_a_repository_without_one_model_is_one_line(cache, files, message):
    put(cache, "someone/model", files)
    with pytest.raises(Mv3dError, match=message):
        resolve_model("someone/model")


def test_without_a_connection_what_is_not_here_is_one_line(cache):
    with pytest.raises(Mv3dError, match="there is no folder someone/absent, and the hub does not give it") as caught:
        resolve_model("someone/absent")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("GatedRepo", "stabilityai/sv3d is gated, .* accept it on the model's page, .*/stabilityai/sv3d, then log in"),
        ("RepoNotFound", "the hub has no model of this name, or not for you: check the name, or log in"),
    ],
)
def test_what_the_hub_refuses_is_explained_in_one_line(cache, monkeypatch, code, message):
    with refusing_server(code) as url:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(Mv3dError, match=message) as caught:
            resolve_model("stabilityai/sv3d")
    assert "\n" not in str(caught.value)


@contextmanager
def refusing_server(code: str) -> Iterator[str]:
    """A hub on this machine that answers everything with one of its error codes."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()

"""Models and LoRAs onto a hub on this machine, through the hub's own client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import load_model, resolve_model
from mv3d.model.publishing import push_folder
from tests.mv3d.hub_double import TOKEN, HubDouble, hub_double

CARD = "---\nlicense: other\nlicense_name: terms\n---\n# tiny\n\n    mv3d orbit photo.jpg --model OWNER/NAME\n"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client's own


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    """An empty hub that the client speaks with, as somebody who may write."""
    with hub_double() as double:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", double.url)
        template = f"{double.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of the endpoint at import
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield double


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/README.md").write_text(CARD)
    (tmp_path / "model/.notes").write_text("Not for others.")
    return tmp_path / "model"


def test_a_model_goes_up_whole(hub, folder, tmp_path, capsys):
    assert main(["push", str(folder), "me/chairs", "--private"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.url}/me/chairs/commit/")
    assert hub.private == {"me/chairs": True}
    there = hub.files("me/chairs")
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert here.pop(".notes")
    assert b"--model me/chairs" in there["README.md"]
    assert b"--model OWNER/NAME" in here["README.md"]  # as it was
    assert there.keys() == here.keys()
    assert all(there[name] == content for name, content in here.items() if name != "README.md")
    with pytest.raises(Mv3dError, match="is not on the hub, so it has no revision zero"):
        load_model(folder, revision="zero")


def test_what_went_up_comes_down_by_its_name(hub, folder, tmp_path):
    assert main(["push", str(folder), "me/chairs"]) == 0
    kept = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}
    ours, commit = load_model(folder), hub.commit("me/chairs", "main")
    shutil.rmtree(folder)
    theirs, again = load_model("me/chairs"), load_model("me/chairs", revision=commit)
    assert theirs.facts == ours.facts
    for name in ("unet", "vae", "image_encoder"):
        state = getattr(ours, name).state_dict()
        for model in (theirs, again):
            found = getattr(model, name).state_dict()
            assert found.keys() == state.keys()
            assert all(torch.equal(value, found[key]) for key, value in state.items())
    assert sorted(name for name in hub.downloads if name.endswith(".safetensors")) == sorted(kept)  # once, from the hub
    assert all((resolve_model("me/chairs") / name).read_bytes() == content for name, content in kept.items())


def test_who_may_not_write_and_what_is_no_model_is_one_line(hub, folder, tmp_path, capsys, monkeypatch):
    assert main(["push", str(tmp_path), "me/chairs"]) == 2
    assert "holds neither a model nor a LoRA" in capsys.readouterr().err
    assert main(["push", str(folder), "chairs"]) == 2
    assert "chairs is no repository on the hub; give owner/name" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert main(["push", str(folder), "me/chairs"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("mv3d: the hub does not let you write to me/chairs (HTTP 401): log in")
    (folder / "README.md").write_text("# tiny")
    assert main(["push", str(folder), "me/chairs"]) == 2
    assert "has no README.md that begins with a license" in capsys.readouterr().err
    assert not hub.branches


def test_a_hub_that_is_away_is_one_line(folder, monkeypatch):
    with hub_double() as gone:
        url = gone.url
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(Mv3dError, match="the hub does not take me/chairs") as caught:
        push_folder(folder, "me/chairs")
    assert "\n" not in str(caught.value)

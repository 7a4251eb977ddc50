"""What a run has made becomes a model again from its checkpoints alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.export import export_model
from finetune.read_config import load_config
from tests.finetune.test_adapt import LORA


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files, and of all tensors: a safetensors header has its facts in any order."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".safetensors":
            found |= {f"{path.name} {key}": value.numpy().tobytes() for key, value in load_file(path).items()}
        else:
            found[path.name] = path.read_bytes()
    return found


def check_card(card: str, made: str) -> None:
    """The model card is filled from the run, and its head is what the hub reads."""
    head = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    assert head["license"] == "other"
    assert head["license_name"] == "see-license.md-of-tiny-svd"
    assert head["license_link"] == "LICENSE.md"
    assert "base_model" not in head  # tiny-svd lies here, and nobody else has it
    assert ("lora" in head["tags"]) == (made == "lora")
    assert "# toy\n" in card
    assert "| steps | 1 |" in card
    assert "| batch | 2 |" in card
    assert "3 objects; `ATTRIBUTION.txt` names each" in card
    use = "--model tiny-svd --lora FOLDER" if made == "lora" else "--model OWNER/NAME"
    assert f"mv3d orbit photo.jpg {use}\n" in card
    assert ("| LoRA | rank 2, alpha 2, temporal_attention |" in card) == (made == "lora")
    assert "StableVideoDiffusionPipeline" not in card  # it has poses


@pytest.mark.slow
@pytest.mark.parametrize(("more", "made"), [("", "model"), (LORA, "lora")])
def test_neither_data_nor_cache_is_needed_to_export_what_is_made_of_a_base(write_recipe, tmp_path, more, made):
    recipe = write_recipe(more=more)
    assert export_model(load_config(recipe)) is None  # nothing is trained yet
    assert main([str(recipe), "--set", "diffusion.loop.steps=1"]) == 0
    before = contents(tmp_path / "run" / made)
    check_card(before["README.md"].decode(), made)
    for folder in (tmp_path / "run" / made, *(tmp_path / "run").glob("latents-*")):
        shutil.rmtree(folder)
    place = export_model(load_config(recipe, [f"data={tmp_path}/nowhere"]))
    assert place is not None
    assert place.is_relative_to(tmp_path / "run" / made)
    assert contents(tmp_path / "run" / made) == before

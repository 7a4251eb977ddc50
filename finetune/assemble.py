"""Putting the averaged weights of a run's stages together as one model folder."""

from __future__ import annotations

from finetune.checkpoint import latest_checkpoint, load_ema
from finetune.config import RunConfig
from finetune.data import Pack, read_manifest
from finetune.stages.diffusion import DiffusionTraining
from mv3d.model.checkpoints import save_model


def assemble_model(run: RunConfig, pack: Pack) -> None:
    """Write ``run/model`` in the diffusers layout, half precision, once every stage has a checkpoint.

    ``ATTRIBUTION.txt`` in it names every object the model was trained on, with its author and licence.
    """
    if all(latest_checkpoint(run.run / stage) for stage in ("autoencoder", "volume", "diffusion")):
        stage = DiffusionTraining(run, pack)
        network = load_ema(run.run / "diffusion", stage.network)
        save_model(stage.model(network), run.run / "model", overwrite=True)
        (run.run / "model" / "ATTRIBUTION.txt").write_text(_attribution(run, pack))


def _attribution(run: RunConfig, pack: Pack) -> str:
    trained_on = {pack.entries[k].object_id for k in pack.indices("train")}
    manifest = {object_id: line for folder in run.data for object_id, line in read_manifest(folder).items()}
    lines = [f"{manifest[name].get('attribution')}; {manifest[name].get('licence')}" for name in sorted(trained_on)]
    return "\n".join(lines) + "\n"

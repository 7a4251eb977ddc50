"""Running a model on held-out objects: one view of each true orbit in, the whole orbit out, a folder for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from eval.folders import find_orbits
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import OrbitModel
from mv3d.orbit import load_orbit, save_orbit


def predict_orbits(model: OrbitModel, truth: Path, out: Path, split: str, settings: GenerateSettings) -> int:
    """Predict every true orbit of a split from its input view; returns how many were made now.

    The number of views and the elevation are the true orbit's; those of ``settings`` are not used. An orbit that is
    there already is left as it is, so a run that was killed continues.

    Raises:
        Mv3dError: if a true orbit does not begin at its input view or has another size than the model.
    """
    made = 0
    for name, folder in tqdm(find_orbits(truth, split).items(), desc="predicting", unit="orbit"):
        if (out / name / "transforms.json").is_file():
            continue
        true = load_orbit(folder)
        if true.facts.input_index != 0:
            raise Mv3dError(f"{folder} does not begin at its input view; its input_index must be 0")
        if true.frames.shape[1] != model.facts.resolution_px:
            true = true.resized(model.facts.resolution_px)
        wanted = replace(settings, num_views=len(true), elevation_deg=true.cameras[0].elevation_deg)
        orbit = generate_orbit(true.frames[0], model, wanted)
        save_orbit(replace(orbit, cameras=true.cameras), out / name, for_people=False)
        made += 1
    return made

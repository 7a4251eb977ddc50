"""Running a model on the input view of every object: one view of the truth in, all views out, a folder for each."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from eval import versions
from eval.protocol import Protocol
from mv3d.errors import Mv3dError
from mv3d.orbit import load_orbit, save_orbit

if TYPE_CHECKING:
    from mv3d.generate import GenerateSettings
    from mv3d.model.models import AnyModel


@dataclass(frozen=True)
class Predictor:
    """A model and how it is asked."""

    model: AnyModel
    settings: GenerateSettings
    fingerprint: str
    """Of the weights, the settings and `versions.PREDICTION`: predictions of another one are never reused."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.model.facts.name + (" coarse" if self.settings.preview else "")


def load_predictor(name_or_folder: str, settings: GenerateSettings, device: str) -> Predictor:
    """Load a model with its fingerprint.

    Raises:
        Mv3dError: if there is no such model.
    """
    from mv3d.model.models import load_any_model

    model = load_any_model(name_or_folder, device)
    digest = hashlib.sha256(json.dumps([versions.PREDICTION, asdict(settings)], sort_keys=True).encode())
    for network in (*model.large_networks, model.coarse):
        for name, tensor in network.state_dict().items() if network is not None else ():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return Predictor(model, settings, digest.hexdigest()[:8])


def check_asked(predictor: Predictor, protocol: Protocol) -> None:
    """Raise `Mv3dError` if the protocol asks for views that the model does not make."""
    if not predictor.model.facts.turns:
        raise Mv3dError(f"{predictor.name} makes clips of no known cameras, not orbits: there is nothing to score")
    if not (_is_level_turn(protocol) or predictor.settings.preview or predictor.model.is_camera_conditioned):
        raise Mv3dError(
            f"{predictor.name} is not conditioned on cameras and makes level, even turns; {protocol.name} wants "
            f"{_path_of(protocol)}: score views made elsewhere with python -m eval score"
        )


def predict_all(
    predictor: Predictor, truths: Mapping[str, Path], protocol: Protocol, out: Path
) -> tuple[dict[str, Path], dict[str, str | float]]:
    """Predict every object's views; an orbit that is there already is left, so a run that was killed continues.

    Returns the orbit folders by object, and what is known about the run: sizes, median seconds, memory.
    """
    level = _is_level_turn(protocol)
    folders = {name: out / name for name in truths}
    for name, folder in tqdm(truths.items(), desc="predicting", unit="object"):
        if not (out / name / "transforms.json").is_file():
            _predict(predictor, folder, folders[name], level_turn=level)
    seconds = [sum(load_orbit_seconds(folder).values()) for folder in folders.values()]
    size_px = predictor.model.output_px
    about: dict[str, str | float] = {
        "resolution_px": size_px,
        "fingerprint": predictor.fingerprint,
        "seconds_median": round(float(np.median(seconds)), 2),
        "peak_memory_gb": round(_peak_memory_gb(predictor.model.device.type), 2),
        "device": predictor.model.device.type,
    }
    if not level:
        about["asked"] = f"{_path_of(protocol)}, as poses; its card says which cameras it was trained on"
    if size_px != protocol.here.resolution_px:
        about["resized"] = f"views of {size_px} px are enlarged or reduced to {protocol.here.resolution_px} px"
    about |= {key: value for key, value in asdict(predictor.settings).items() if value is not None}
    return folders, {key: value for key, value in about.items() if key not in ("num_views", "elevation_deg")}


def load_orbit_seconds(folder: Path) -> dict[str, float]:
    """How long an orbit took, by stage, from its facts."""
    return json.loads((folder / "transforms.json").read_text()).get("mv3d", {}).get("seconds", {})


def _is_level_turn(protocol: Protocol) -> bool:
    return protocol.here.path == "static" and protocol.here.azimuths_deg == "even"


def _path_of(protocol: Protocol) -> str:
    azimuths_deg = protocol.here.azimuths_deg
    if isinstance(azimuths_deg, list):
        return f"azimuths {', '.join(f'{azimuth_deg:g}' for azimuth_deg in azimuths_deg)}"
    return f"{protocol.here.path} cameras"


def _predict(predictor: Predictor, true_folder: Path, folder: Path, *, level_turn: bool) -> None:
    from mv3d.generate import generate_orbit

    truth = load_orbit(true_folder)
    model_px, wanted_px = predictor.model.output_px, truth.frames.shape[1]
    given = truth.select([0])
    if model_px != wanted_px:
        given = given.resized(model_px)
    wanted = replace(predictor.settings, num_views=len(truth), elevation_deg=truth.cameras[0].elevation_deg)
    if not level_turn:
        turns = [(camera.azimuth_deg - truth.cameras[0].azimuth_deg) % 360 for camera in truth.cameras]
        elevations = tuple(camera.elevation_deg for camera in truth.cameras)
        wanted = replace(wanted, azimuths_deg=tuple(turns), elevations_deg=elevations)
    orbit = generate_orbit(given.frames[0], predictor.model, wanted)
    if model_px != wanted_px:
        orbit = orbit.resized(wanted_px)
    # Its distance and lens are the truth's: a picture tells neither, and they change no pixel.
    save_orbit(replace(orbit, cameras=truth.cameras), folder, for_people=False)


def _peak_memory_gb(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

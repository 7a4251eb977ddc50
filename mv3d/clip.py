"""Clips: frames of a model that is told no cameras, so that nobody knows where they were seen from.

A folder of one has ``frames/000.png …`` and a video, but ``clip.json`` in place of an orbit's ``transforms.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mv3d.files import whole_folder
from mv3d.frame_files import save_frames
from mv3d.orbit import FORMAT_VERSION, Facts, check_replaceable, save_sheet, save_video
from mv3d.transforms import CLIP_FILE


@dataclass(frozen=True, eq=False)
class Clip:
    """What a moving camera sees: ``frames`` (N, height, width, 4) RGBA, evenly spaced in time."""

    frames: Float32[np.ndarray, "N H W 4"]
    facts: Facts = Facts()

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 4 or self.frames.dtype != np.float32:
            raise ValueError(f"frames must be float32 (N, H, W, 4), got {self.frames.dtype} {self.frames.shape}")

    def __len__(self) -> int:
        return len(self.frames)


def save_clip(clip: Clip, folder: Path, *, overwrite: bool = False, more: Mapping[str, bytes] | None = None) -> None:
    """Write the clip's folder, with ``clip.mp4``, ``sheet.png`` and ``more`` files by their names in it.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set, or is neither an orbit's nor a clip's.
    """
    check_replaceable(folder, overwrite=overwrite)
    with whole_folder(folder, overwrite=overwrite) as partial:
        names = save_frames(clip.frames, partial)
        known = {key: value for key, value in asdict(clip.facts).items() if value not in (None, {})}
        described = {"frames": names, "mv3d": {"format_version": FORMAT_VERSION, **known}}
        (partial / CLIP_FILE).write_text(json.dumps(described, indent=1) + "\n")
        save_video(clip.frames, partial / "clip.mp4")
        save_sheet(clip.frames, partial / "sheet.png")
        for name, data in (more or {}).items():
            (partial / name).write_bytes(data)

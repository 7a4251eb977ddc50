"""Figures of a run: always as JSON lines, and to wandb when the config names a project."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from mv3d.errors import Mv3dError


class TrainingLog:
    """Appends one JSON object a line to ``run/log.jsonl``."""

    def __init__(
        self, run: Path, *, wandb_project: str | None = None, config: dict | None = None, enabled: bool = True
    ) -> None:
        self._path = run / "log.jsonl"
        self._enabled = enabled
        if enabled:
            run.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and not self._path.is_file():  # a pipe would wait for a reader
                raise Mv3dError(f"{self._path} is no file, where the run's log belongs; move it away")
        self._wandb = _start_wandb(run, wandb_project, config or {}) if wandb_project and enabled else None

    def write(self, *, step: int, **metrics: float) -> None:
        """Record the metrics of a step."""
        if not self._enabled:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics, "time": round(time.time())}) + "\n")
        if self._wandb is not None:
            self._wandb.log({"step": step, **metrics})

    def show(self, *, step: int, sheet: Path) -> None:
        """Send a validation's sheet, and the video that lies beside it (truth left, model's views right), to wandb."""
        if self._wandb is None:
            return
        import wandb  # pyright: ignore[reportMissingImports]  (an extra)

        media: dict[str, Any] = {"sheet": wandb.Image(str(sheet))} if sheet.is_file() else {}
        video = sheet.with_suffix(".mp4")
        if video.is_file():
            media["orbits"] = wandb.Video(str(video), format="mp4")
        self._wandb.log({"step": step, **media})

    def close(self) -> None:
        """End the run; nothing is lost if this is never called."""
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run: Path, project: str, config: dict):
    import wandb  # pyright: ignore[reportMissingImports]  (an extra)

    # The same id brings a resumed run into the same one on the server.
    identity = run / "wandb_id.txt"
    if not identity.exists():
        identity.write_text(f"{run.name}-{time.time_ns():x}")
    started = wandb.init(project=project, id=identity.read_text(), dir=str(run), resume="allow")
    # Our own count of steps: wandb's only grows, and would refuse what a killed run had sent and this one sends again.
    started.define_metric("*", step_metric="step")
    started.config.update(config, allow_val_change=True)
    return started

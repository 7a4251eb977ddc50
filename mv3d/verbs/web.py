"""``mv3d web``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.options import Device


@dataclass(frozen=True)
class WebVerb:
    """A page to play with: drop a picture, turn the object, take home the video and the mesh; works offline."""

    model: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODEL")] = ()
    """What visitors may choose, the first unless they do; as of mv3d orbit, mini if not given."""
    lora: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FILE")] = ()
    """A LoRA that gets a slider on the page where the chosen model takes it, or a folder of LoRAs; several add up."""
    text_model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """What draws the pictures of words that visitors say, as of mv3d orbit; if not given, they cannot."""
    host: str = "127.0.0.1"
    """The address to serve on: 0.0.0.0 lets everybody in who reaches this machine."""
    port: int = 7860
    """The port to serve on; 0 takes a free one."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Where results are kept, a folder per visitor; mv3d/web in the user's folder for data if not given."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    no_browser: bool = False
    """Do not open a browser."""
    verbose: Verbose = False

    def run(self) -> int:
        """Serve until interrupted."""
        from mv3d.app.server import ServeSettings, serve

        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        settings = ServeSettings(
            folder=(self.out or data / "mv3d" / "web").absolute(),
            host=self.host,
            port=self.port,
            models=self.model or ("mini",),
            loras=self.lora,
            text_model=self.text_model,
            device=self.device,
            opens_browser=not self.no_browser,
        )
        serve(settings)
        return 0

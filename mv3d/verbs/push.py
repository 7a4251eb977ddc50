"""``mv3d push``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose


@dataclass(frozen=True)
class PushVerb:
    """Put a model folder or a LoRA folder on the Hugging Face hub, with the model card that training wrote into it."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Such as runs/svd_mv/model or runs/svd_mv_lora/lora."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Where to; made if it is not there."""
    private: bool = False
    """Make a new repository that only its owner sees."""
    revision: str | None = None
    """A branch to put it on; made if it is not there."""
    verbose: Verbose = False

    def run(self) -> int:
        """Upload; returns the exit code."""
        from mv3d.model.publishing import push_folder

        print(push_folder(self.folder, self.repository, private=self.private, revision=self.revision))
        return 0

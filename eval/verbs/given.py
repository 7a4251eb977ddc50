"""``python -m eval score`` and ``geometry``: what somebody else made, against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.options import Alignment, Order
from eval.verbs.results import show_text
from mv3d.command_line import Verbose

_Predicted = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTED")]
_Truth = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH")]


@dataclass(frozen=True)
class ScoreVerb:
    """Score anybody's views against true ones."""

    predicted: _Predicted
    """An orbit folder, a folder of numbered pictures, a strip of views, a video, or a folder of these."""
    truth: _Truth
    """The same, with the true views; objects are matched by relative path."""
    protocol: str | None = None
    """What to check the truth against and score by; without one, as the views are, on white."""
    order: Order = "input-first"
    """Where the input view stands; SV3D writes it last."""
    name: str | None = None
    """What to call the method; the folder's name if not given."""
    train: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Training orbits for two of the baselines."""
    lpips: tuple[str, ...] = ("alex", "vgg")
    """Networks for LPIPS, where no protocol names them."""
    dists: bool = False
    """Score DISTS too."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder for the report; without one it is printed only."""
    overwrite: bool = False
    """Replace the report if it exists."""
    verbose: Verbose = False

    def run(self) -> int:
        """Score them; returns the exit code."""
        from eval.benchmark.given import score_given
        from eval.protocol import load_protocol
        from eval.report.page import save_report
        from eval.report.text import format_result
        from mv3d.files import check_free

        if self.out is not None:
            check_free(self.out, overwrite=self.overwrite)
        protocol = None if self.protocol is None else load_protocol(self.protocol)
        name = self.name or self.predicted.name
        finished = score_given(
            self.predicted, self.truth, protocol, self.order, name, self.train, self.lpips, dists=self.dists
        )
        if self.out is not None:
            save_report(finished, self.out, protocol=protocol, order=self.order, overwrite=self.overwrite)
        print(format_result(finished.result, protocol.published if protocol else ()), end="")
        return 0


@dataclass(frozen=True)
class GeometryVerb:
    """Score anybody's meshes against true ones: Chamfer, volume IoU, F-scores, normal consistency."""

    predicted: _Predicted
    """A mesh file, or a folder of them."""
    truth: _Truth
    """The same, with the true meshes; they are matched by relative path, whatever the format."""
    align: Alignment = "none"
    """yaw: 72 turns about the vertical; icp: from there rotation, translation and scale."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """Markdown file to write too."""
    verbose: Verbose = False

    def run(self) -> int:
        """Score them; returns the exit code."""
        from eval.meshes.given import format_scores, score_meshes

        show_text(format_scores(score_meshes(self.predicted, self.truth, self.align)), self.out)
        return 0

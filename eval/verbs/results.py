"""``python -m eval table``, ``gallery``, ``protocols`` and ``weights``: what needs no views to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose


@dataclass(frozen=True)
class TableVerb:
    """Set runs of one protocol side by side, with paired differences and what others published under it."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of reports, or their scores.json."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """Markdown file to write too."""
    verbose: Verbose = False

    def run(self) -> int:
        """Print the tables; returns the exit code."""
        from eval.benchmark.given import format_runs

        show_text(format_runs(self.runs), self.out)
        return 0


@dataclass(frozen=True)
class GalleryVerb:
    """Show a run's best, median and worst objects: input, true and predicted views, a sheet of each kind."""

    report: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT")]
    """Folder that python -m eval run wrote."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Folder for best.webp, median.webp, worst.webp and README.md."""
    work: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/eval")
    """The run's own --work, where its views are."""
    by: str = "lpips_alex"
    """Metric to rank by, as it is called in scores.json: lpips_alex, psnr, silhouette_iou, chamfer, ..."""
    count: int = 10
    """Objects on a sheet."""
    overwrite: bool = False
    """Replace the folder if it exists."""
    verbose: Verbose = False

    def run(self) -> int:
        """Draw the sheets; returns the exit code."""
        from eval.report.gallery import save_gallery

        save_gallery(self.report, self.work, self.out, self.by, self.count, overwrite=self.overwrite)
        print(self.out)
        return 0


@dataclass(frozen=True)
class ProtocolsVerb:
    """List the protocols, what each states, and how many published rows it has."""

    verbose: Verbose = False

    def run(self) -> int:
        """Print them; returns the exit code."""
        from eval.protocol import list_protocols, load_protocol

        for name in list_protocols():
            protocol = load_protocol(name)
            unknown = [key.replace("_", " ") for key, setting in protocol.settings.items() if setting.stated is None]
            print(f"{name}: {protocol.title}; {len(protocol.published)} published rows")
            print(f"    {protocol.citation}; not stated: {', '.join(unknown) or 'nothing'}")
        return 0


@dataclass(frozen=True)
class WeightsVerb:
    """Fetch and convert the weights of LPIPS and DISTS, once."""

    cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder to keep them in; $MV3D_CACHE or ~/.cache/mv3d if not given."""
    verbose: Verbose = False

    def run(self) -> int:
        """Fetch them; returns the exit code."""
        from eval.metrics.weights import fetch_weights

        for path in fetch_weights(self.cache):
            print(path)
        return 0


def show_text(text: str, out: Path | None) -> None:
    """Print text, and write it to a file if there is one."""
    from mv3d.files import whole_file

    if out is not None:
        with whole_file(out) as partial:
            partial.write_text(text)
    print(text, end="")

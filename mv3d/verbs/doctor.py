"""``mv3d doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from mv3d.command_line import Verbose


@dataclass(frozen=True)
class DoctorVerb:
    """Say what this machine can do, on its GPUs, in Blender, with the weights that are here; and what to install."""

    verbose: Verbose = False

    def run(self) -> int:
        """Print what is found, line by line; returns the exit code."""
        from mv3d.doctor import examine

        for finding in examine():
            print(f"{finding.name:<26} {finding.text}", flush=True)
            if finding.advice is not None:
                print(f"{'':<26} -> {finding.advice}", flush=True)
        return 0

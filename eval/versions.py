"""Versions of code whose results `eval` keeps between runs.

Raise a version when the numbers that its code makes change: what older code made is then made again, not mixed in. A
change that leaves all numbers as they are, of a comment or of speed, keeps the version and what was computed.
"""

from __future__ import annotations

PREDICTION = 5
"""Of predicted views: `mv3d.generate`, `mv3d.model`, `mv3d.pixels`, `mv3d.cameras`; and `eval.benchmark.predict`."""
LIFTING = 4
"""Of lifted meshes and their scores: `mv3d.lift`, `eval.meshes.lifting`, `eval.metrics.geometry`."""
SCORING = 1
"""Of scores of views: `eval.scoring.score`, `eval.metrics`."""

"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every machine and no limit on their time: a loaded machine is no failure.
settings.register_profile("mv3d", derandomize=True, deadline=None)
settings.load_profile("mv3d")

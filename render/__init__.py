"""Render objects to posed orbits: the workshop room that turns mesh files into training and test data."""

from __future__ import annotations

VERSION = "0.3"

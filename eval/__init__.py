"""Scores of predicted orbits against true ones: metrics, baselines and reports. Run as ``python -m eval``."""

"""Scores of predicted orbits against true ones: metrics, protocols, baselines and reports. Run as ``python -m eval``."""

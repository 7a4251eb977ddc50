"""Predicted views compared with true ones, beside the baselines; and the result."""

"""Measures of how far one picture, mask or mesh is from another."""

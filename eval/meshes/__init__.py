"""Meshes scored: anybody's, and those that views are lifted to."""

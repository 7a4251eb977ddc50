"""The two-stage model: coarse volume, then video diffusion; import the submodules, nothing is imported here."""

"""The two-stage model: a coarse network, then video diffusion; import the submodules, nothing is imported here."""

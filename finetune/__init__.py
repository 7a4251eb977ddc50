"""The trainer: orbits to cached latents to batches to checkpoints, every stage by config."""

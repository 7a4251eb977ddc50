"""Many objects rendered by many processes: jobs, workers, the manifest of what came out, and what it will cost."""

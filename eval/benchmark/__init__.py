"""From objects, or from views that somebody made, to a result."""

"""Which rendered objects are worth training on: scores of their views, and rules about the scores."""

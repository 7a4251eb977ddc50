"""Measurements behind the numbers in the documents, each a command of its own."""

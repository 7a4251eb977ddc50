"""What `python -m eval` can be told to do, a class each; their docstrings are the help."""

"""The verbs of the command line, one file each: what is asked for, and what is printed of it."""

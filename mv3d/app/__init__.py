"""The page (``mv3d web``): it asks the functions behind the command line, and shows what they give."""

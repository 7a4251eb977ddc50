"""The one exception that is the user's to mend: the command line prints it as a line and exits with code 2."""


class Mv3dError(ValueError):
    """Something given to mv3d cannot be used; the message names the value, the limit and the next step."""

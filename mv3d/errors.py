"""The one exception that is the user's to mend: command lines print it as a line and exit with code 2."""

from __future__ import annotations


class Mv3dError(ValueError):
    """Something given to mv3d cannot be used; the message names the value, the limit and the next step.

    It names things as Python has them. ``argument`` is the parameter that mends it, such as ``overwrite``: a command
    line adds its own word for it (`mv3d.command_line`).
    """

    argument: str | None = None

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        """Say what is wrong, and which parameter mends it if there is one."""
        super().__init__(message)
        if argument is not None:
            self.argument = argument

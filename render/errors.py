"""The one exception that is an object's fault and not the user's."""

from __future__ import annotations


class Unusable(ValueError):
    """The object cannot be rendered; the message is the reason the manifest records."""

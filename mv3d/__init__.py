"""mv3d: one picture of an object in, a consistent turntable and a textured mesh out."""

__version__ = "0.1.0"

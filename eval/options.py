"""What can be asked of ``python -m eval``; imports nothing heavy, because it is in the help."""

from __future__ import annotations

from typing import Literal

Order = Literal["input-first", "input-last"]
"""Where the input view stands among the views of an orbit; SV3D writes it last."""
SsimWindow = Literal["gaussian", "uniform"]
"""Of structural similarity, as torchmetrics and as scikit-image have it by default."""
Alignment = Literal["none", "yaw", "icp"]
"""How a mesh is moved to the true one before they are compared."""

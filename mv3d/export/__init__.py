"""Export: an orbit and its mesh in the formats of others, one file per family of formats.

``save_mesh`` and ``load_mesh`` are what the rest of mv3d needs of it; ``export_source`` is behind ``mv3d export``.
"""

from mv3d.export.formats import Exported, export_source, pick_format
from mv3d.export.meshes import MESH_SUFFIXES, check_all_free, check_format, load_mesh, save_mesh
from mv3d.export.printing import PrintFacts, PrintSettings

__all__ = [
    "MESH_SUFFIXES",
    "Exported",
    "PrintFacts",
    "PrintSettings",
    "check_all_free",
    "check_format",
    "export_source",
    "load_mesh",
    "pick_format",
    "save_mesh",
]

"""USD and USDZ, through Pixar's own library (usd-core, the extra ``usd``)."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.mesh import Mesh


def save_usd(mesh: Mesh, y_up_from_world: np.ndarray, path: Path, texture_name: str) -> None:
    """Write a stage: Y up, one unit a metre, the mesh with a UsdPreviewSurface, its texture beside it or in the USDZ.

    Y up, though USD can say Z up as well: it is what glTF has and what Apple's viewers expect.
    Replaces ``path``, and ``texture_name`` beside it.

    Raises:
        Mv3dError: if usd-core is not installed.
    """
    try:
        from pxr import UsdUtils  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Mv3dError(f"{path.name}: USD needs usd-core; install it: pip install usd-core") from None
    if path.suffix.lower() == ".usdz":
        with tempfile.TemporaryDirectory(prefix="mv3d-usd-") as folder, whole_file(path) as partial:
            inner = Path(folder) / f"{path.stem}.usdc"
            _export(mesh, y_up_from_world, inner, path.stem, texture_name)
            _save_texture(mesh, Path(folder) / texture_name)
            if not UsdUtils.CreateNewUsdzPackage(str(inner), str(partial)):
                raise Mv3dError(f"{path} could not be packed")
        return
    with ExitStack() as files:
        _export(mesh, y_up_from_world, files.enter_context(whole_file(path)), path.stem, texture_name)
        if mesh.texture is not None:
            _save_texture(mesh, files.enter_context(whole_file(path.with_name(texture_name))))


def _save_texture(mesh: Mesh, path: Path) -> None:
    if mesh.texture is not None:
        Image.fromarray(mesh.texture.pixels).save(path)


def _export(mesh: Mesh, y_up_from_world: np.ndarray, path: Path, name: str, texture_name: str) -> None:
    from pxr import Kind, Sdf, Tf, Usd, UsdGeom, Vt  # pyright: ignore[reportMissingImports]

    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/" + Tf.MakeValidIdentifier(name))
    stage.SetDefaultPrim(root.GetPrim())
    Usd.ModelAPI(root).SetKind(Kind.Tokens.component)
    shape = UsdGeom.Mesh.Define(stage, root.GetPath().AppendChild("mesh"))
    points = (mesh.vertices @ y_up_from_world.T).astype(np.float32)
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, dtype=np.int32)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).ravel()))
    shape.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([points.min(axis=0), points.max(axis=0)])))
    normals = (mesh.corner_normals().reshape(-1, 3) @ y_up_from_world.T).astype(np.float32)
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(normals))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.faceVarying)
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)  # the default would round the triangles off
    if mesh.texture is not None:
        uv = UsdGeom.PrimvarsAPI(shape).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
        )
        uv.Set(Vt.Vec2fArray.FromNumpy(mesh.texture.corner_uv.reshape(-1, 2).astype(np.float32)))
        _bind_material(stage, root, shape, texture_name)
    stage.GetRootLayer().Export(str(path))


def _bind_material(stage: Any, root: Any, shape: Any, texture_name: str) -> None:
    """A dielectric without gloss, its colour the texture's."""
    from pxr import Sdf, UsdShade  # pyright: ignore[reportMissingImports]

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, root.GetPath().AppendChild("material"))
    surface, texture, reader = (
        UsdShade.Shader.Define(stage, material.GetPath().AppendChild(name)) for name in ("surface", "texture", "st")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", types.Asset).Set(Sdf.AssetPath(f"./{texture_name}"))
    texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        texture.CreateInput(axis, types.Token).Set("clamp")
    texture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("metallic", types.Float).Set(0.0)
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(texture.CreateOutput("rgb", types.Float3))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)

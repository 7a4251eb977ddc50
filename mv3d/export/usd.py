"""USD and USDZ, through Pixar's own library (usd-core, the extra ``usd``)."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.mesh import Mesh


def save_usd(mesh: Mesh, y_up_from_world: np.ndarray, path: Path, texture_name: str, normals_name: str) -> None:
    """Write a stage: Y up, one unit a metre, the mesh with a UsdPreviewSurface, its texture beside it or in the USDZ.

    Y up, though USD can say Z up as well: it is what glTF has and what Apple's viewers expect.
    Replaces ``path``, and ``texture_name`` and, if there is a normal map, ``normals_name`` beside it.

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
            _export(mesh, y_up_from_world, inner, path.stem, texture_name, normals_name)
            for name, pixels in _pictures(mesh, texture_name, normals_name).items():
                Image.fromarray(pixels).save(Path(folder) / name)
            if not UsdUtils.CreateNewUsdzPackage(str(inner), str(partial)):
                raise Mv3dError(f"{path} could not be packed")
        return
    with ExitStack() as files:
        _export(mesh, y_up_from_world, files.enter_context(whole_file(path)), path.stem, texture_name, normals_name)
        for name, pixels in _pictures(mesh, texture_name, normals_name).items():
            Image.fromarray(pixels).save(files.enter_context(whole_file(path.with_name(name))))


def _pictures(mesh: Mesh, texture_name: str, normals_name: str) -> dict[str, NDArray[np.uint8]]:
    """The pictures of a mesh's material, by the names of their files."""
    if mesh.texture is None:
        return {}
    normals = mesh.texture.normals
    return {texture_name: mesh.texture.pixels} | ({} if normals is None else {normals_name: normals})


def _export(
    mesh: Mesh, y_up_from_world: np.ndarray, path: Path, name: str, texture_name: str, normals_name: str
) -> None:
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
        _bind_material(stage, root, shape, texture_name, None if mesh.texture.normals is None else normals_name)
    stage.GetRootLayer().Export(str(path))


def _bind_material(stage: Any, root: Any, shape: Any, texture_name: str, normals_name: str | None) -> None:
    """A dielectric without gloss, its colour the texture's, its normals the map's."""
    from pxr import Sdf, UsdShade  # pyright: ignore[reportMissingImports]

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, root.GetPath().AppendChild("material"))
    surface, reader = (
        UsdShade.Shader.Define(stage, material.GetPath().AppendChild(name)) for name in ("surface", "st")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    place = reader.CreateOutput("result", types.Float2)

    def look_up(name: str, file: str, colour_space: str) -> Any:
        texture = UsdShade.Shader.Define(stage, material.GetPath().AppendChild(name))
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", types.Asset).Set(Sdf.AssetPath(f"./{file}"))
        texture.CreateInput("sourceColorSpace", types.Token).Set(colour_space)
        for axis in ("wrapS", "wrapT"):
            texture.CreateInput(axis, types.Token).Set("clamp")
        texture.CreateInput("st", types.Float2).ConnectToSource(place)
        return texture

    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("metallic", types.Float).Set(0.0)
    surface.CreateInput("roughness", types.Float).Set(1.0)
    colours = look_up("texture", texture_name, "sRGB").CreateOutput("rgb", types.Float3)
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(colours)
    if normals_name is not None:
        normals = look_up("normals", normals_name, "raw")
        normals.CreateInput("scale", types.Float4).Set((2.0, 2.0, 2.0, 1.0))
        normals.CreateInput("bias", types.Float4).Set((-1.0, -1.0, -1.0, 0.0))
        surface.CreateInput("normal", types.Normal3f).ConnectToSource(normals.CreateOutput("rgb", types.Float3))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)

"""Writers of the two games' formats, as small as their readers allow."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

NO_BONE = 255


def grid(side: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square of 2 * side^2 faces in the plane z = 0, 1 wide and 2 high, its picture upright: vertices, uv, faces."""
    steps = np.linspace(0, 1, side + 1)
    u, v = (part.ravel() for part in np.meshgrid(steps, steps))
    first = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).ravel()
    faces = np.stack([first, first + 1, first + side + 2, first, first + side + 2, first + side + 1], -1).reshape(-1, 3)
    return np.stack([u - 0.5, 2 * v, 0.2 * u * (1 - u)], -1), np.stack([u, v], -1), faces


def pmd(vertices, uv, faces, *, bones=(), props=(), version: int = 4) -> bytes:
    """A PMD mesh; bones are rows of 7 floats, props (name, 7 floats, bone)."""
    count = len(vertices)
    body = struct.pack("<II", count, 1)
    for position, texcoord in zip(vertices, uv, strict=True):
        body += (
            struct.pack("<8f", *position, 0, 0, 1, *texcoord)
            + bytes([0, 255, 255, 255])
            + struct.pack("<4f", 1, 0, 0, 0)
        )
    body += struct.pack("<I", len(faces)) + np.asarray(faces, "<u2").tobytes()
    body += struct.pack("<I", len(bones)) + np.asarray(bones, "<f4").tobytes()
    body += struct.pack("<I", len(props))
    for name, place, bone in props:
        body += struct.pack("<I", len(name)) + name.encode() + struct.pack("<7fB", *place, bone)
    return b"PSMD" + struct.pack("<II", version, len(body)) + body


def g3d(*meshes) -> bytes:
    """A G3D model of (vertices of F frames (F, V, 3), uv, faces, picture or None, properties)."""
    data = b"G3D\x04" + struct.pack("<HB", len(meshes), 0)
    for frames, uv, faces, picture, properties in meshes:
        frames = np.asarray(frames, "<f4")
        data += b"part".ljust(64, b"\0") + struct.pack("<III", *frames.shape[:2], np.size(faces))
        data += struct.pack("<8f", 1, 0.5, 0, 0, 0, 0, 1, 1) + struct.pack("<II", properties, picture is not None)
        if picture is not None:
            data += picture.encode().ljust(64, b"\0")
        data += frames.tobytes() + np.broadcast_to(np.float32([0, 0, 1]), frames.shape).astype("<f4").tobytes()
        if picture is not None:
            data += np.asarray(uv, "<f4").tobytes()
        data += np.asarray(faces, "<u4").tobytes()
    return data


def picture(top: tuple[int, ...], bottom: tuple[int, ...], kind: str = "DDS") -> bytes:
    """A picture of 8x8 pixels in two colours."""
    pixels = np.zeros((8, 8, len(top)), np.uint8)
    pixels[:4], pixels[4:] = top, bottom
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

"""How well objects are cut out: the cut-outs of assets/ put before backgrounds, and freed again.

    python -m benchmarks.matting

Backgrounds are a light sheet, the same with a soft shadow of the object, and a floor of coloured tiles. Of each: the
overlap (IoU) of the found silhouette with the true one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mv3d.image import load_picture
from mv3d.matte import NotPlainError, matte_plain, matte_u2net, matte_without_shadow
from mv3d.pixels import Frames, resize

SIZE_PX = 512
ASSETS = Path(__file__).parents[1] / "assets"
_METHODS: dict[str, Callable[[Frames], Frames]] = {
    "colour": matte_plain,
    "colour, no shadow": matte_without_shadow,
    "U2-Net": matte_u2net,
}
_DARK = 0.5  # of the light, in the middle of a shadow
_BLUR_PX = 6


def shadow_of(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much light of the background is left (H, W) around the foot of an object: an ellipse, blurred."""
    rows, columns = np.nonzero(alpha > 0.5)
    half = np.ptp(columns) / 2
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    ellipse = np.hypot((x - columns.mean() - 20) / half, (y - rows.max() + 8) / (0.22 * half)) < 1
    return 1 - gaussian_filter(_DARK * ellipse, _BLUR_PX).astype(np.float32)


def backgrounds(alpha: NDArray[np.float32], random: np.random.Generator) -> dict[str, Frames]:
    """What stands behind an object, by name, (H, W, 3) each."""
    sheet = np.full((SIZE_PX, SIZE_PX, 3), (0.95, 0.94, 0.93), dtype=np.float32)
    tiles = np.kron(random.uniform(0.3, 0.8, (16, 16, 3)), np.ones((SIZE_PX // 16, SIZE_PX // 16, 1)))
    return {"sheet": sheet, "sheet and shadow": sheet * shadow_of(alpha)[..., None], "tiles": tiles.astype(np.float32)}


def main() -> None:
    """Print one row for each picture and background, and the means."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(ASSETS.glob("*.png")):
        rgba = resize(load_picture(path), SIZE_PX, SIZE_PX)
        colour, alpha = rgba[..., :3], rgba[..., 3]
        if alpha.min() > 0:
            continue  # no cut-out
        random = np.random.default_rng(0)
        for name, background in backgrounds(alpha, random).items():
            photo = colour * alpha[..., None] + background * (1 - alpha[..., None])
            photo = np.clip(photo + random.normal(0, 0.004, photo.shape), 0, 1).astype(np.float32)
            scores = []
            for method, matte in _METHODS.items():
                try:
                    inside = matte(photo)[..., 3] > 0.5
                except NotPlainError:
                    inside = np.zeros_like(alpha, dtype=bool)
                truth = alpha > 0.5
                scores.append((inside & truth).sum() / (inside | truth).sum())
                found.setdefault((name, method), []).append(scores[-1])
            print(path.stem, name, *(f"{score:.3f}" for score in scores), flush=True)
    for (name, method), scores in found.items():
        print(f"{name}, {method}: mean {np.mean(scores):.3f}, worst {min(scores):.3f}, of {len(scores)}")


if __name__ == "__main__":
    main()

"""Pictures that cannot be scored, put into a folder of plain views in place of the third."""

from pathlib import Path

from PIL import Image


def put_cmyk(folder: Path) -> None:
    (folder / "002.png").unlink()
    Image.new("CMYK", (32, 32)).save(folder / "002.jpg")


def put_animated(folder: Path) -> None:
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    pictures[0].save(folder / "002.png", save_all=True, append_images=pictures[1:])

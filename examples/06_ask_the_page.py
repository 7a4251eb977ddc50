"""An orbit and a mesh from a page that runs elsewhere, by its REST API; what dropping a picture on the page does.

mv3d web                                                      # on the machine that computes
python examples/06_ask_the_page.py --url http://127.0.0.1:7860 --picture assets/chair.png --out chair_page

Needs gradio_client, which comes with the page and can be installed without it. In other languages: the page's foot,
"Use via API", shows the same as plain HTTP requests.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.request import urlopen

import tyro
from gradio_client import Client, handle_file  # pyright: ignore[reportMissingImports]


def main(
    url: str = "http://127.0.0.1:7860",
    picture: Path = Path("assets/chair.png"),
    out: Path = Path("chair_page"),
    seed: int = 0,
) -> None:
    """Send a picture, wait in the page's line, and bring home what is made of it."""
    client = Client(url, verbose=False)
    made = client.predict(handle_file(picture), seed=seed, api_name="/orbit")
    out.mkdir(parents=True, exist_ok=True)
    for key, address in made["files"].items():
        with urlopen(f"{url}/{address}") as sent, (out / sent.headers.get_filename(key)).open("wb") as file:
            shutil.copyfileobj(sent, file)
            print(f"{key}: {file.name}")


if __name__ == "__main__":
    tyro.cli(main)

"""Serving the page: gradio's app, the downloads beside it, and the REST API."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mv3d.app.asking import options_from, uploaded
from mv3d.app.downloads import file_of, offered
from mv3d.app.flow import Workshop
from mv3d.app.results import VISITOR_COOKIE, Results
from mv3d.app.work import message_of
from mv3d.errors import Mv3dError
from mv3d.options import Device, OrbitOptions

_LARGEST_UPLOAD = "200mb"
_YEAR_SECONDS = 31_536_000
_STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True)
class ServeSettings:
    """Where the page is served, and what it offers."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7860
    models: tuple[str, ...] = ("mini",)
    loras: tuple[str, ...] = ()
    text_model: str | None = None
    device: Device = "auto"
    opens_browser: bool = True


def serve(settings: ServeSettings) -> None:
    """Serve the page until it is interrupted.

    Raises:
        Mv3dError: if gradio is not installed, the port is taken, or a model or LoRA is not there.
    """
    with tempfile.TemporaryDirectory(prefix="mv3d-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # before gradio is imported: its components remember it
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            import gradio  # noqa: F401  # pyright: ignore[reportMissingImports]
            import uvicorn  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Mv3dError("the page needs gradio: pip install 'mv3d[app]'") from error
        workshop = _make_workshop(settings)
        workshop.results.tidy()
        listening = _listen(settings.host, settings.port)
        app = make_app(workshop, Path(folder))
        threading.Thread(target=_load_first, args=(workshop,), daemon=True).start()
        host, port = listening.getsockname()[:2]
        address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
        print(f"mv3d: the page is at {address} (Ctrl-C ends it); results are in {settings.folder}", flush=True)
        if settings.opens_browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
        server.run(sockets=[listening])


def make_app(workshop: Workshop, uploads: Path) -> Any:
    """The page, its downloads and its API, as an ASGI app."""
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from fastapi import FastAPI  # pyright: ignore[reportMissingImports]
    from fastapi.responses import FileResponse, PlainTextResponse  # pyright: ignore[reportMissingImports]

    from mv3d.app.page import build_page

    app = FastAPI(openapi_url=None)

    @app.get("/files/{visitor}/{result}/{key}", response_model=None)
    def download(visitor: str, result: str, key: str) -> FileResponse | PlainTextResponse:
        try:
            found = workshop.results.visitor(visitor)
            if found.name != visitor:
                raise Mv3dError("there is nobody of that name here")
            path, called = file_of(found.find(result), key)
        except (Mv3dError, OSError) as error:
            return PlainTextResponse(message_of(error), status_code=404)
        return FileResponse(path, filename=called)

    page = build_page(workshop, uploads)
    with page:
        gr.api(_orbit_endpoint(workshop, uploads), api_name="orbit", concurrency_limit=None)
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        font=["ui-sans-serif", "system-ui", "sans-serif"],  # nothing is fetched: the page works offline
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css_paths=[_STATIC / "page.css"],
        footer_links=["api"],
        run_history=False,
        max_file_size=_LARGEST_UPLOAD,
        ssr_mode=False,
        show_error=True,
    )
    return with_visitor_cookie(app, workshop.results)


def with_visitor_cookie(app: Any, results: Results) -> Any:
    """Give every browser that opens the page a secret of its own, by which its results are found again."""
    from starlette.datastructures import MutableHeaders  # pyright: ignore[reportMissingImports]
    from starlette.requests import Request  # pyright: ignore[reportMissingImports]

    async def with_cookie(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            return await app(scope, receive, send)
        given = Request(scope).cookies.get(VISITOR_COOKIE)
        name = results.visitor(given).name

        async def send_with_cookie(message: Any) -> None:
            if message["type"] == "http.response.start":
                cookie = f"{VISITOR_COOKIE}={name}; Path=/; Max-Age={_YEAR_SECONDS}; HttpOnly; SameSite=Lax"
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        return await app(scope, receive, send_with_cookie)

    return with_cookie


def _orbit_endpoint(workshop: Workshop, uploads: Path) -> Any:
    """The one function of the REST API."""

    def orbit(
        picture: dict,
        mask: dict | None = None,
        seed: int = 0,
        elevation: float | None = None,
        num_views: int = 21,
        matte: str = "auto",
        mesh: bool = True,
        model: str | None = None,
    ) -> dict:
        """Make an orbit of a picture, and its mesh; options as of ``mv3d orbit``.

        ``picture`` and ``mask`` are uploaded files. What comes back has ``files``, addresses below the page's, by
        their keys: video, frames (a zip of the orbit folder) and, with a mesh, glb, stl and others.
        """
        import gradio as gr  # pyright: ignore[reportMissingImports]

        from mv3d.app.masks import save_own

        asked = {"seed": seed, "elevation": elevation, "num_views": num_views, "matte": matte, "mesh": mesh}
        visitor = workshop.results.visitor(None)
        result = None
        try:
            options: OrbitOptions = options_from(workshop, asked | {"model": model})
            result = visitor.add(uploaded(picture.get("path"), uploads), str(picture.get("orig_name") or "picture"))
            if mask is not None:
                save_own(result, uploaded(mask.get("path"), uploads))
        except (Mv3dError, OSError) as error:
            raise gr.Error(message_of(error, result), print_exception=False) from error
        status: dict[str, Any] = {}
        for update in workshop.make(secrets.token_hex(8), result, options):
            status = update.get("status", status)
        if not result.is_finished or status.get("state") != "done":
            raise gr.Error(status["text"], print_exception=False)
        files = {one.key: f"files/{visitor.name}/{result.name}/{one.key}" for one in offered(result)}
        return {"files": files}

    return orbit


def _load_first(workshop: Workshop) -> None:
    """Load the first model while the visitor looks for a picture; what is wrong with it he is told when he asks."""
    try:
        workshop.load(options_from(workshop, {}))
    except Exception:  # as above
        return


def _make_workshop(settings: ServeSettings) -> Workshop:
    from mv3d.app.adapters import find_loras, unfit_pairs
    from mv3d.model.hub import resolve_model

    for model in settings.models:
        resolve_model(model)
    if settings.text_model is not None:
        from mv3d.model.text_to_image import find_text_model

        find_text_model(settings.text_model)
    loras = find_loras(settings.loras)
    return Workshop(
        Results(settings.folder),
        settings.models,
        loras,
        unfit=unfit_pairs(settings.models, loras),
        text_model=settings.text_model,
        device=settings.device,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # who comes before the page is up waits, and is not sent away
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
        raise Mv3dError(f"cannot serve on {host}, port {port}: {reason}; choose another", argument="port") from error
    return listening

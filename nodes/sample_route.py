"""The pack's samples over HTTP, so that the editor can show a sample portrait and play sample speech before Run."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from .engine import InputError
from .host import inside, samples_folder


def add_route() -> None:
    """Serve GET /vasa/samples/NAME."""

    @PromptServer.instance.routes.get("/vasa/samples/{name}")
    async def sample(request: web.Request) -> web.StreamResponse:
        try:
            path = inside(samples_folder() or ".", request.match_info["name"])
        except InputError as error:
            raise web.HTTPNotFound from error
        if not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

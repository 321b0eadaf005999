"""Just enough of a server for ComfyUI's editor: it serves pages, pack and settings, and keeps what Run posts."""

import base64
import hashlib
import json
import mimetypes
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

from vasa.nodes import describe

ROOT = Path(__file__).resolve().parents[2]
HELLO = {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "test"}}
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server must add to the browser's key (RFC 6455)."""


class Backend(ThreadingHTTPServer):
    """An editor at `url` that offers the workflows of one folder as the pack's templates.

    Args:
        templates: folder of workflow files.
        settings: the user's settings, by the editor's names.
    """

    daemon_threads = True

    def __init__(self, templates: Path, settings: dict) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.prompts = []
        self.folders = {
            "/extensions/vasa/": ROOT / "web",
            "/workflow_templates/vasa/": templates,
            "/vasa/samples/": ROOT / "examples",
            "/": Path(str(files("comfyui_frontend_package"))) / "static",
        }
        self.answers = {
            "/object_info": {
                name: node | {"python_module": "custom_nodes.vasa" if name.startswith("VASA_") else "nodes"}
                for name, node in describe.core_info().items()
            },
            "/system_stats": {"system": {"os": "test", "argv": [], "comfyui_version": "0.33.0"}, "devices": []},
            "/settings": settings,
            "/users": {"storage": "server", "migrated": True},
            "/userdata": [],
            "/extensions": ["/extensions/vasa/vasa.js"],
            "/i18n": {
                place.name: {"nodeDefs": json.loads((place / "nodeDefs.json").read_text("utf-8"))}
                for place in (ROOT / "locales").iterdir()
            },
            "/workflow_templates": {"vasa": sorted(path.stem for path in templates.glob("*.json"))},
            "/experiment/models": [],
            "/global_subgraphs": {},
            "/jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False}},
            "/features": {},
        }

    def __enter__(self) -> "Backend":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a page may leave before it is answered
            super().handle_error(request, address)


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        path = self.route()
        if path == "/ws":
            return self.greet()
        if path in self.server.answers:
            return self.say(self.server.answers[path])
        for start, folder in self.server.folders.items():
            file = (folder / (path.removeprefix(start) or "index.html")).resolve()
            if path.startswith(start) and file.is_relative_to(folder.resolve()) and file.is_file():
                return self.send(200, file.read_bytes(), mimetypes.guess_type(file.name)[0])
        self.say({}, 404)

    def do_POST(self) -> None:  # noqa: N802
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.route() != "/prompt":
            return self.say({}, 404)
        self.server.prompts.append(json.loads(sent)["prompt"])
        number = len(self.server.prompts)
        self.say({"prompt_id": str(number), "number": number, "node_errors": {}})

    def route(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/api")

    def say(self, answer: object, status: int = 200) -> None:
        self.send(status, json.dumps(answer).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def greet(self) -> None:
        """Open the websocket, say hello, and listen until the page leaves."""
        key = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.end_headers()
        hello = json.dumps(HELLO).encode()
        self.wfile.write(bytes([0x81, len(hello)]) + hello)  # a whole text; so short, its length is one byte
        while self.rfile.read(1):
            pass
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...

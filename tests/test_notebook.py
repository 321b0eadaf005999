"""The notebook runs from top to bottom, and the kit finds its way behind a proxy. Needs the extra `notebook`."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import wave
from pathlib import Path

import pytest

from vasa import notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "vasa.ipynb"
pytestmark = pytest.mark.usefixtures("tidy")


def test_the_pages_address_behind_a_hub(monkeypatch):
    for name in ("GRADIO_ROOT_PATH", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    assert notebook.proxy_path(7860) is None
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert notebook.proxy_path(7861) == "/user/ada/proxy/7861"
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/elsewhere")
    assert notebook.proxy_path(7861) == "/elsewhere"


def test_a_free_port_is_free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", notebook.free_port()))


def test_the_stored_notebook_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_and_shows_the_page(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("gradio")
        pytest.importorskip("ipykernel")
        nbformat = pytest.importorskip("nbformat")
        preprocessors = pytest.importorskip("nbconvert.preprocessors")
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(tmp_path / "s.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getframerate()))
    monkeypatch.setenv("VASA_MODEL", str(ROOT / "tests" / "data" / "tiny"))
    monkeypatch.setenv("VASA_SPEECH", str(tmp_path / "s.wav"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = nbformat.read(NOTEBOOK, 4)
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    preprocessors.ExecutePreprocessor(timeout=600).preprocess(run, where)
    shown = json.dumps(run)
    for expected in ("<video controls", "image/png", "<iframe", "25 frames", "vasa 0."):
        assert expected in shown, expected


ELSEWHERE = """
import importlib.util, json, sys
importlib.util.find_spec = lambda name: None  # nothing is installed
exec(sys.stdin.read())
import vasa
print(json.dumps([str(ROOT), vasa.__file__]))
"""


@pytest.fixture
def repository(tmp_path):
    """A small repository that can be installed without a network, and that installs no `vasa`."""
    folder = tmp_path / "repository"
    for name, text in {
        "gradio_app.py": "",
        "vasa/__init__.py": "",
        "pyproject.toml": """
            [build-system]
            requires = []
            build-backend = "backend"
            backend-path = ["."]
            """,
        "backend.py": """
            import pathlib, zipfile

            def build_editable(folder, config=None, metadata=None):
                wheel, about = "notebook_probe-0-py3-none-any.whl", "notebook_probe-0.dist-info"
                with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w") as file:
                    head = "Metadata-Version: 2.1\\nName: notebook-probe\\nVersion: 0\\nProvides-Extra: notebook\\n"
                    file.writestr(f"{about}/METADATA", head)
                    file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
                    file.writestr(f"{about}/RECORD", "")
                    file.writestr("notebook_probe.pth", str(pathlib.Path.cwd()))
                return wheel
            """,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.mark.parametrize("alone", [True, False], ids=["the notebook alone", "inside the repository"])
def test_where_nothing_is_installed_the_first_cell_fetches_and_installs_it(tmp_path, repository, alone):
    """As on Colab, in an interpreter of its own; pip works in a folder of the test's."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    (tmp_path / "content").mkdir()
    where = tmp_path / "content" if alone else repository / "vasa"
    if alone:
        for command in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
        ):
            subprocess.run(["git", "-C", str(repository), *command], check=True)
    first = next(cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code")
    cell = "".join(first["source"])
    assert 'REPOSITORY = ""' in cell
    settings = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_PREFIX": str(tmp_path / "installed")}

    def run(repository: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", ELSEWHERE], cwd=where, capture_output=True, text=True, timeout=120,
            input=cell.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}"),
            env={**os.environ, **settings, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip

    if alone:
        assert "set REPOSITORY to the address" in run("").stderr
    done = run(f"file://{repository}")
    assert done.returncode == 0, done.stderr
    root = where / "vasa" if alone else repository
    assert json.loads(done.stdout.splitlines()[-1]) == [str(root), str(root / "vasa" / "__init__.py")]
    (path,) = (tmp_path / "installed").rglob("notebook_probe.pth")
    assert path.read_text() == str(root)


@contextlib.contextmanager
def behind_a_hub(port: int):
    """A server that shows another one under a path of its own and strips it, as jupyter-server-proxy does."""
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def forward(request):
        # one client per request: they end in the server's loop
        client = httpx.AsyncClient(timeout=None)
        path = request.path_params["path"]
        headers = {name: value for name, value in request.headers.items() if name != "accept-encoding"}
        sent = client.build_request(
            request.method, f"http://127.0.0.1:{port}/{path}", params=request.query_params, headers=headers,
            content=await request.body(),
        )  # fmt: skip
        answer = await client.send(sent, stream=True)

        async def body():
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()
                await client.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "connection")}
        return StreamingResponse(body(), answer.status_code, kept)

    routes = [Route(f"/user/ada/proxy/{port}/{{path:path}}", forward, methods=["GET", "POST", "HEAD"])]
    hub = notebook.free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=hub, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{hub}/user/ada/proxy/{port}/"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.filterwarnings("ignore")
def test_the_page_works_behind_a_hub_and_a_second_one_takes_its_place(monkeypatch, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("gradio")
        pytest.importorskip("ipykernel")
        client = pytest.importorskip("gradio_client")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    model, portrait = str(ROOT / "tests" / "data" / "tiny"), str(ROOT / "examples" / "portrait.png")
    first = notebook.show(model, device="cpu")
    port = notebook.free_port()
    notebook.show(model, device="cpu", port=port)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", first.server_port), 2):
        pass
    try:
        with behind_a_hub(port) as address:
            page = client.Client(address, verbose=False)
            assert page.config["root"].endswith(f"/user/ada/proxy/{port}")
            found = page.predict(client.handle_file(portrait), None, None, None, api_name="/inspect")
            assert found[0]["finding"] == "640 × 640 pixels"
            page.close()
    finally:
        notebook.close()

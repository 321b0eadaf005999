"""The notebook runs from top to bottom, and the kit finds its way behind a proxy. Needs the extra `notebook`."""

import json
import socket
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
        nbclient = pytest.importorskip("nbclient")
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(tmp_path / "s.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getframerate()))
    monkeypatch.setenv("VASA_MODEL", str(ROOT / "tests" / "data" / "tiny"))
    monkeypatch.setenv("VASA_SPEECH", str(tmp_path / "s.wav"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(run, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    shown = json.dumps(run)
    for expected in ("<video controls", "image/png", "<iframe", "25 frames", "vasa 0."):
        assert expected in shown, expected

"""`vasa download` against a hub on this machine: asked for, resumed, verified, mirrored, offline."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from vasa import cli
from vasa.backends.liveportrait import download, transfer

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "c0ffee" * 6 + "c0ff"
CONTENT = bytes(range(256)) * 4096
FILES = {
    "liveportrait/base_models/appearance.pth": CONTENT,
    "liveportrait/retargeting_models/small.pth": b"small" * 100,
    "insightface/models/det_10g.onnx": b"for research only",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that the client asks for."""

    def log_message(self, *parts):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        state = self.server.state
        path = self.path.partition("?")[0]
        state["asked"].append((self.command, path, self.headers))
        if path.startswith("/api/models/"):
            made = json.dumps(listing(state)).encode()
            return self.send(200, made if body else b"", {"Content-Type": "application/json"})
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name not in FILES:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = state["served"].get(name, FILES[name])
        digest = hashlib.sha256(FILES[name]).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        first = 0
        if (wanted := self.headers.get("Range")) and not state.get("whole"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            if first >= len(content):
                return self.send(416, b"", {})
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        piece = content[first:]
        cuts = state["cut"].get(name)
        cut = cuts.pop(0) if body and cuts else None
        self.send(206 if first else 200, piece if body else b"", headers, len(piece), cut)

    def send(self, code, content, headers, length=None, cut=None):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)


def listing(state):
    files = []
    for name, content in FILES.items():
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"sha256": digest, "size": len(content), "pointerSize": 130}
        files.append({"rfilename": name, "size": len(content), "blobId": "b" * 40, "lfs": lfs})
    return {"_id": "1", "id": "KwaiVGI/LivePortrait", "sha": COMMIT, "siblings": files, "tags": [], "private": False}


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.state = {"asked": [], "served": {}, "cut": {}}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def paths(hub, method="GET"):
    return [path.rpartition("/")[2] for m, path, _ in hub.state["asked"] if m == method and "/resolve/" in path]


def run(hub, dest, *options):
    return cli.main(["download", "liveportrait", str(dest), "--mirror", hub.address, *options])


def test_nothing_is_fetched_before_somebody_agrees(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(hub, tmp_path) == 2
    said = capsys.readouterr()
    assert "1.0 MB" in said.out and "licence MIT" in said.out and "Kuaishou" in said.out and COMMIT[:12] in said.out
    assert "nobody is there to agree" in said.err and not paths(hub) and not any(tmp_path.iterdir())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answers = iter(["", "n", "yes"])
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), next(answers))[1])
    for _ in range(2):
        assert run(hub, tmp_path) == 2 and "nothing was downloaded" in capsys.readouterr().err and not paths(hub)
    assert run(hub, tmp_path) == 0 and set(asked) == {"1 MB in all; licence MIT. Download? [y/N] "}
    assert (tmp_path / "liveportrait/base_models/appearance.pth").read_bytes() == CONTENT
    assert not (tmp_path / "insightface").exists() and capsys.readouterr().out.count("SHA-256 verified") == 2


NAME = "liveportrait/base_models/appearance.pth"


def ranges(hub):
    return [h.get("Range") for m, p, h in hub.state["asked"] if m == "GET" and p.endswith("appearance.pth")]


def test_a_broken_connection_is_taken_up_where_it_broke(hub, tmp_path):
    hub.state["cut"] = {NAME: [300_000, 200_000]}
    assert run(hub, tmp_path, "--yes") == 0 and (tmp_path / NAME).read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_that_was_given_up_goes_on_in_the_next_run(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(transfer, "_TRIES", 1)
    hub.state["cut"] = {NAME: [300_000]}
    assert run(hub, tmp_path, "--yes") == 2
    said = capsys.readouterr().err
    assert "run the same command again to resume" in said and said.count("\n") == 1
    assert not (tmp_path / NAME).exists() and len(list(tmp_path.rglob("*.partial"))) == 1
    hub.state["asked"].clear()
    assert run(hub, tmp_path, "--yes") == 0 and (tmp_path / NAME).read_bytes() == CONTENT
    assert ranges(hub) == ["bytes=300000-"] and not list(tmp_path.rglob("*.partial"))


def test_a_hub_that_cannot_resume_begins_again(hub, tmp_path):
    hub.state["whole"] = True
    hub.state["cut"] = {NAME: [300_000]}
    assert run(hub, tmp_path, "--yes") == 0 and (tmp_path / NAME).read_bytes() == CONTENT


def test_half_a_file_of_another_version_is_not_continued(hub, tmp_path):
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / f"{NAME}.0123456789ab.partial").write_bytes(b"old")
    too_long = tmp_path / f"{NAME}.{hashlib.sha256(CONTENT).hexdigest()[:12]}.partial"
    too_long.write_bytes(CONTENT + b"more")
    assert run(hub, tmp_path, "--yes") == 0 and (tmp_path / NAME).read_bytes() == CONTENT


def test_a_full_disk_is_seen_before_anything_is_fetched(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert run(hub, tmp_path, "--yes") == 2
    assert "appearance.pth needs 1 MB" in capsys.readouterr().err and not paths(hub)


def test_a_listing_cannot_name_files_outside_of_the_folder(hub, tmp_path, monkeypatch, capsys):
    outside = "liveportrait/base_models/../../../outside.pth"
    monkeypatch.setitem(FILES, outside, b"outside")
    assert run(hub, tmp_path / "in", "--yes") == 0
    assert "outside" not in capsys.readouterr().out and not list(tmp_path.rglob("outside*"))


def test_what_is_there_already_is_not_fetched_again(hub, tmp_path):
    assert run(hub, tmp_path, "--yes") == 0
    hub.state["asked"].clear()
    assert run(hub, tmp_path, "--yes") == 0 and not paths(hub)


def test_a_file_that_is_not_the_listed_one_is_thrown_away(hub, tmp_path, capsys):
    hub.state["served"] = {NAME: CONTENT[::-1]}
    assert run(hub, tmp_path, "--yes") == 2
    assert "is damaged: its SHA-256 is not" in capsys.readouterr().err and not (tmp_path / NAME).exists()
    hub.state["served"] = {}
    assert run(hub, tmp_path, "--yes") == 0 and (tmp_path / NAME).read_bytes() == CONTENT


def test_no_token_goes_to_a_mirror(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(hub, tmp_path / "a", "--yes") == 0
    # the client reads this variable when it is imported
    environment = os.environ | {"HF_ENDPOINT": hub.address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vasa", "download", "liveportrait", str(tmp_path / "b"), "--yes"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / NAME).read_bytes() == (tmp_path / "a" / NAME).read_bytes() == CONTENT
    assert {headers.get("Authorization") for _, _, headers in hub.state["asked"]} == {None} and len(paths(hub)) == 4


def test_offline_nothing_is_asked(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(hub, tmp_path, "--yes") == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err and not hub.state["asked"]


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    code = cli.main(["download", "joyvasa", str(tmp_path), "--mirror", "http://127.0.0.1:9"])
    said = capsys.readouterr().err
    assert code == 2 and "cannot be reached" in said and said.count("\n") == 1


def test_an_unlisted_file_is_named(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(
        download.CATALOGUE, "liveportrait", download.Entry("KwaiVGI/LivePortrait", ("gone/*.pth",), "a renderer")
    )
    assert run(hub, tmp_path, "--yes") == 2 and "no longer holds gone/*.pth" in capsys.readouterr().err

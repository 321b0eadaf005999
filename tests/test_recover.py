"""Fault matrix row 40: what a killed run left behind becomes playable; what existed before stays."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from vasa.cli import main
from vasa.errors import InputError
from vasa.io.recover import find_leftover, recover
from vasa.io.video import VideoWriter, read_manifest, read_video

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
KINDS = ["talk.mp4", "talk.mov", "talk.webm", "talk"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder in which a process was killed while it wrote one output of every kind."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "talk.mp4").write_bytes(b"earlier")
    script = """
        import sys, time
        from contextlib import ExitStack
        from pathlib import Path
        import torch
        from vasa.io.alpha import writer_for
        torch.set_num_threads(1)
        with ExitStack() as stack:
            for name in sys.argv[2:]:
                path, alpha = Path(sys.argv[1]) / name, not name.endswith("mp4")
                sound = (0.1 * torch.randn(160_000), 16000)
                writer = stack.enter_context(writer_for(path, alpha)(path, 64, 25, sound, {"seed": 5}))
                for _ in range(15):
                    writer.write(torch.rand(10, 4 if alpha else 3, 64, 64))
            print("written", flush=True)
            time.sleep(600)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(folder), *KINDS],
        text=True,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout.readline().strip() == "written", child.communicate()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return folder


@posix
@pytest.mark.parametrize("kind, least", [("talk.mp4", 50), ("talk.mov", 140), ("talk.webm", 50)])
def test_killed_videos_become_playable(capsys, killed, tmp_path, kind, least):
    out = tmp_path / kind
    leftover = killed / f".talk.partial{out.suffix}"
    before = leftover.read_bytes()
    assert main(["recover", str(killed / kind), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "frames" in said and "can be deleted" in said
    with av.open(str(out)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    with av.open(str(out)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert least <= pictures <= 150 and f"{pictures} frames" in said
    # the last fragment's sound may be lost with it
    assert pictures / 25 - 2.1 < samples / 48000 < pictures / 25 + 0.6
    assert read_manifest(out)["recovered"] is True
    assert leftover.read_bytes() == before and (killed / "talk.mp4").read_bytes() == b"earlier"


@posix
def test_killed_folder_of_pictures(killed, tmp_path):
    saved = recover(killed / "talk", tmp_path / "out")
    assert saved.frames == len(list((tmp_path / "out").glob("*.png"))) >= 140
    with Image.open(tmp_path / "out" / "000139.png") as image:
        assert image.mode == "RGBA" and image.size == (64, 64)


@posix
def test_default_name_leaves_the_earlier_output(killed):
    saved = recover(killed / ".talk.partial.mp4")
    assert saved.path == killed / "talk.recovered.mp4" and saved.seconds == pytest.approx(saved.frames / 25)
    assert (killed / "talk.mp4").read_bytes() == b"earlier"
    with pytest.raises(InputError, match="exists already"):
        recover(killed / ".talk.partial.mp4")
    saved.path.unlink()


@posix
def test_half_a_leftover_gives_half_a_video(killed, tmp_path):
    whole = (killed / ".talk.partial.mp4").read_bytes()
    (tmp_path / ".cut.partial.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    saved = recover(tmp_path / "cut.mp4")
    assert 20 <= len(list(read_video(saved.path).frames)) <= saved.frames < 150


def test_a_finished_video_may_be_recovered_too(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 32, 25, metadata={"seed": 9}) as writer:
        writer.write(torch.zeros(5, 3, 32, 32))
    saved = recover(tmp_path / "v.mp4")
    assert saved.path.name == "v.recovered.mp4" and saved.frames == 5
    assert read_manifest(saved.path) == {"seed": 9, "recovered": True}


def test_nothing_to_recover_is_said_in_one_sentence(capsys, tmp_path):
    (tmp_path / ".noise.partial.mp4").write_bytes(b"noise" * 1000)
    (tmp_path / ".empty.partial.mp4").touch()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / ".bare.partial").mkdir()
    for name, words in [
        ("noise.mp4", "not a readable"),
        ("empty.mp4", "is empty"),
        ("text.txt", "no unfinished video"),
        ("bare", "holds no pictures"),
        ("absent.mp4", "neither"),
        ("nul\0.mp4", "recover|embedded|neither|cannot"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        assert main(["recover", str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
        if "|" not in words:
            assert words in said.err
        assert sorted(tmp_path.rglob("*")) == before


def test_leftover_is_found_by_the_outputs_name(tmp_path):
    (tmp_path / f".{'x' * 60}.partial.mp4").touch()
    assert find_leftover(tmp_path / f"{'x' * 200}.mp4").name == f".{'x' * 60}.partial.mp4"

"""No more threads than a container may use."""

import os

import pytest
import torch

from vasa import threads


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize("text, expected", [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("x", 8)])
def test_a_share_of_the_machine_is_read(many, tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert threads.processors(tmp_path) == expected


def test_the_older_files_are_read_too(many, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.processors(tmp_path) == 3
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.processors(tmp_path) == 8
    assert threads.processors(tmp_path / "nowhere") == 8


def test_threads_are_lowered_and_never_raised_or_taken_from_the_user(many, monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    for share, expected in ((2, [2]), (8, [2])):
        monkeypatch.setattr(threads, "processors", lambda share=share: share)
        threads.fit_threads()
        assert set_to == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(threads, "processors", lambda: 1)
    threads.fit_threads()
    assert set_to == [2]

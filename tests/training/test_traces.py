"""Other files of a run: provenance.json, log.txt, permissions for colleagues, names as typed by the user."""

import io
import json
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import SMALL, type_words, write_photos

from irformer.reporting.page import ResultTable
from irformer.training.provenance import add_entry, git_state, start_entry
from irformer.training.run_log import RunLog, log_only

AREA = "runs and sweeps"
REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    photos = write_photos(tmp_path_factory.mktemp("val"), 2)
    kept = [word for word in SMALL if not word.startswith(("name=", "logger="))]
    return [
        *kept,
        "trainer.max_steps=2",
        "trainer.val_check_interval=1",
        "checkpoint_every=1",
        f"data.val={photos}",
        f"test_sets=[{photos}]",
    ]


@pytest.mark.parametrize("umask", [0o002, 0o022])
def test_files_have_the_mode_of_the_umask(tmp_path, words, umask, attempts):
    """Every file and folder of a run, regardless of the library that writes it."""
    status, printed = type_words(tmp_path, *words, "name=job", "logger=tensorboard", sabotage=Umask(umask))
    assert status == 0, printed
    paths = [tmp_path / "runs" / "job", *(tmp_path / "runs" / "job").rglob("*")]
    assert {"best.safetensors", "last.ckpt", "log.txt", "provenance.json", "report.html", ".lock"} <= {path.name for path in paths}
    for path in paths:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
        attempts.handled(AREA)


class Umask:
    def __init__(self, umask: int) -> None:
        self.umask = umask

    def __call__(self) -> None:
        os.umask(self.umask)


def test_each_start_leaves_an_entry_and_its_lines(tmp_path, words, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    odd = "[b]job[-b]:fire:"
    for name in ("job", odd):
        status, printed = type_words(tmp_path, *words, f"name='{name}'", "logger=csv")
        assert status == 0, printed
        assert f"folder      runs/{name}\n" in printed
        assert f"wrote runs/{name}/results.json\n" in printed
    first = (tmp_path / "runs/job/log.txt").read_text()
    status, printed = type_words(tmp_path, "resume=runs/job", "trainer.max_steps=3")
    assert status == 0, printed

    text = (tmp_path / "runs/job/provenance.json").read_text()
    start, resumed = json.loads(text)["starts"]
    assert (start["from_step"], resumed["from_step"]) == (0, 2)
    assert start["command"].startswith("train.py norm=iln model=swinir_tiny ")
    assert resumed["command"] == "train.py resume=runs/job trainer.max_steps=3"
    assert start["folder"] == str(tmp_path)
    assert all(start["packages"].values())
    assert len(start["devices"]) == 1
    assert "hunter2" not in text

    log = (tmp_path / "runs/job/log.txt").read_text()
    assert log.startswith(first), "what was said before stays"
    lines = log.splitlines()
    assert lines[0] == f"# {start['started']} {start['host']}: {start['command']}"
    assert f"# {resumed['started']} {resumed['host']}: {resumed['command']}" in lines
    for part in ("task        sr_x2", "folder      runs/job", "wrote runs/job/report.html"):
        assert lines.count(part) == 2, part
    for part in ("step 2/2  ", "step 3/3  ", "bicubic", "measured "):
        assert part in log, part


@pytest.mark.slow
def test_on_a_terminal_the_log_holds_lines_and_no_bars(tmp_path, words):
    command = [sys.executable, str(REPOSITORY / "train.py"), *words, "name=job", "logger=csv", "callbacks.progress.line_seconds=0"]
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert running.wait(60) == 0, shown
    assert b"\r" in shown
    assert b"\x1b[1m" in shown
    log = (tmp_path / "runs/job/log.txt").read_bytes()
    assert b"\x1b" not in log
    assert b"\r" not in log
    assert b"it/s]" not in log
    for part in (b"\nstep 1/2  ", b"\nstep 2/2  ", b"\ntask     sr_x2\n"):
        assert log.count(part) == 1, log


def test_a_log_takes_text_apart(tmp_path, capsys):
    with RunLog(tmp_path / "log.txt", "# start"):
        print("\x1b[1mbold\x1b[0m and \x1b]8;;file:///x\x07link\x1b]8;;\x07")
        print("in two ", end="")
        print("parts", end="\n\n")
        print("\r 50%|#####     | 1/2 [00:00<00:00,  9.12it/s]\r100%|##########| 2/2 [00:00<00:00,  9.12it/s]", file=sys.stderr)
        print("\r 50%|#####     | 1/2 [00:00<00:00,  9.12it/s]step 1: skipped", file=sys.stderr)
        log_only.info("for the file")
    assert (tmp_path / "log.txt").read_text().splitlines() == [
        "# start", "bold and link", "in two parts", "", "step 1: skipped", "for the file",
    ]  # fmt: skip
    log_only.info("to nobody")
    print("to the terminal")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 6
    assert capsys.readouterr().out.endswith("\n\nto the terminal\n")


def test_a_damaged_provenance_is_kept(tmp_path, attempts):
    file = tmp_path / "provenance.json"
    for content in ("{", "[]", '{"starts": 1}'):
        file.write_text(content)
        add_entry(file, {"a": 1})
        attempts.handled(AREA)
    assert json.loads(file.read_text()) == {"starts": [{"a": 1}]}
    assert sorted(kept.read_text() for kept in tmp_path.glob("provenance.damaged*")) == ["[]", "{", '{"starts": 1}']
    add_entry(file, {"a": 2})
    assert json.loads(file.read_text()) == {"starts": [{"a": 1}, {"a": 2}]}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "code"
    folder.mkdir()

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (folder / "a.py").write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    return folder, git


def test_the_commit_and_whether_files_differ_from_it(checkout, tmp_path):
    folder, git = checkout
    commit = git("rev-parse", "HEAD")
    assert git_state([folder]) == {"commit": commit, "dirty": False}
    (folder / "b.py").write_text("new")
    assert git_state([folder]) == {"commit": commit, "dirty": True}
    (folder / ".git" / "info" / "exclude").write_text("venv\nb.py\n")
    (folder / "venv").mkdir()
    assert git_state([folder / "venv"]) is None, "installed within somebody's checkout"
    assert git_state([tmp_path]) is None, "outside of a checkout"


def test_git_runs_no_hook_cannot_hang_and_may_be_missing(checkout, tmp_path, monkeypatch, attempts):
    folder, git = checkout
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {ran}\n"
    for hook in (folder / ".git/hooks/post-index-change", folder / ".git/monitor"):
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(script)
        hook.chmod(0o755)
    git("config", "core.fsmonitor", str(folder / ".git/monitor"))
    os.utime(folder / "a.py", (1, 1))  # so that git status would refresh the index
    state = git_state([folder])
    assert state is not None
    assert not state["dirty"]
    assert not ran.exists()
    attempts.handled(AREA)
    git("status")
    assert ran.exists(), "git itself runs them"

    stuck = tmp_path / "bin" / "git"
    stuck.parent.mkdir()
    stuck.write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stuck.parent}:/usr/bin:/bin")
    began = time.monotonic()
    assert git_state([folder], seconds=0.3) is None
    assert time.monotonic() - began < 10
    attempts.handled(AREA)
    monkeypatch.setenv("PATH", str(tmp_path))
    entry = start_entry(["train.py"], 0, ["cpu"])
    assert (entry["code"], entry["command"]) == (None, "train.py")
    attempts.handled(AREA)


def test_tables_print_what_they_hold_as_it_is(attempts):
    odd = "[b]x[/b] [/] :fire: \\[i]"
    printed = io.StringIO()
    ResultTable(odd, ["", odd], [[odd, odd]], [odd]).show(Console(file=printed, width=200))
    assert printed.getvalue().count(odd) == 5
    attempts.handled(AREA)

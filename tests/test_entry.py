"""How commands end when nobody waits for them: Ctrl-C at any moment, a pipe that is closed, an output that is full."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import picture

from irformer import entry
from irformer.commands import command_line
from irformer.imaging.images import write_image

REPOSITORY = Path(__file__).parent.parent
AREA = "machine faults"
ENTRIES = ["train.py", *(f"scripts/{file.name}" for file in sorted((REPOSITORY / "scripts").glob("*.py")))]
TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu", "logger=csv"]


def start(*words: str, folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def loaded(pid: int, library: str) -> bool:
    """Whether a process has begun to load a library."""
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("library", ["_multiarray_umath", "libtorch_cpu"])
def test_ctrl_c_while_modules_load(tmp_path, library, attempts):
    """In the middle of NumPy's and of PyTorch's."""
    running = start("train.py", *TINY, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not loaded(running.pid, library) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    printed, errors = running.communicate(timeout=60)
    assert (running.returncode, printed, errors) == (130, "", "")
    assert not list(tmp_path.iterdir())
    attempts.handled(AREA)


@pytest.mark.parametrize("script", ENTRIES)
def test_every_entry_names_a_command(script):
    """Without loading them all: the module is there and has the function."""
    text = (REPOSITORY / script).read_text()
    if 'entry("' not in text:
        name = text.split("from irformer.entry import ")[1].split()[0]
        text = (REPOSITORY / "irformer/entry.py").read_text().split(f"\ndef {name}() -> None:")[1]
    module, _, function = text.split('entry("')[1].split('"')[0].partition(":")
    source = REPOSITORY / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}() -> None:\n" in source.read_text()


@pytest.mark.parametrize(("script", "words"), [("train.py", ["norm=", "trainer.max_steps="]), ("scripts/benchmark.py", ["checkpoint="])])
def test_help_is_one_screen_of_the_keys_that_people_type(script, words, tmp_path):
    done = shell(shlex.join([sys.executable, "-X", "importtime", str(REPOSITORY / script), "--help"]), tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("irformer 0.1.0: ")
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    assert all(f"  {word}" in done.stdout for word in words)
    assert "docs/configuration.md" in lines[-1]
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}, "help does not wait for torch"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "word", "message"),
    [
        ("train.py", "modle=swinir_tiny", "unknown key modle; did you mean model?"),
        ("train.py", "optim.lrr=1e-4", "unknown key optim.lrr; did you mean optim.lr?"),
        ("train.py", "model=swinir_tyni", "model=swinir_tyni: unknown model; known: "),
        ("scripts/benchmark.py", "chekpoint=bicubic", "unknown key chekpoint; did you mean checkpoint?"),
    ],
)
def test_a_misspelled_word_does_not_wait_for_torch(script, word, message, tmp_path):
    done = shell(shlex.join([sys.executable, "-X", "importtime", str(REPOSITORY / script), word]), tmp_path)
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ENTRIES)
def test_every_script_is_an_installed_command(script):
    name = Path(script).stem
    assert f'\nirformer-{name.replace("_", "-")} = "irformer.entry:{name}"\n' in (REPOSITORY / "pyproject.toml").read_text()
    assert callable(getattr(entry, name))


@pytest.mark.parametrize("name", [name for name in vars(command_line) if callable(getattr(entry, name, None)) and name != "entry"])
def test_help_of_a_command_does_not_wait_for_torch(name, monkeypatch, capsys):
    """Nor do usage errors: the command itself is imported after its options are parsed."""
    monkeypatch.setattr(entry.pkgutil, "resolve_name", lambda path: {f"irformer.commands.command_line:{name}": parser}[path])
    parser = getattr(command_line, name)
    for words, status in (["--help"], 0), (["--no-such-option"], 2):
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as exit_:
            getattr(entry, name)()
        assert exit_.value.code == status
    assert capsys.readouterr().out.startswith(f"usage: {name} ")


def test_options_are_described_without_heavy_imports():
    code = (
        "import irformer.commands.command_line, sys; print(*[name for name in ('torch', 'hydra', 'numpy', 'cv2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip() == ""


def shell(line: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_closed_pipe_ends_a_list(tmp_path, attempts):
    program = shlex.join([sys.executable, str(REPOSITORY / "scripts" / "prepare_data.py")])
    done = shell(f"{program} list | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stderr == ""
    assert done.stdout in ("141\n", "1\n")  # rich ends by 1 where it meets the pipe itself
    attempts.handled(AREA)


@pytest.mark.parametrize("output", ["| head -1", pytest.param("> /dev/full", marks=pytest.mark.slow)])
def test_a_run_goes_on_without_its_terminal(tmp_path, output, attempts):
    """Its lines are in log.txt."""
    (tmp_path / "val").mkdir()
    write_image(tmp_path / "val" / "a.png", picture(40, 48))
    words = [*TINY, "name=job", "data.val=val", "test_sets=[val]"]
    program = shlex.join([sys.executable, str(REPOSITORY / "train.py"), *words])
    done = shell(f"{program} {output}; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    log = (tmp_path / "runs/job/log.txt").read_text()
    reason = "Broken pipe" if "head" in output else "No space left on device"
    assert f"<stdout>: {reason}; the run continues; its output is only in this file\n" in log
    assert "\nwrote runs/job/results.json\n" in log
    attempts.handled(AREA)

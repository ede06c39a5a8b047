"""Fixtures of the tests of scripts/restore.py."""

import sys

import pytest
from conftest import picture

from irformer.commands.restore import restore
from irformer.imaging.images import write_image
from restoring.places import save


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with weights and a tree of photos."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "w.safetensors")
    for i, name in enumerate(("a.png", "sub/b.png", "sub/deep/c.jpg")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "photos" / name, picture(12, 16, seed=i))
    return tmp_path


@pytest.fixture
def typed(place, monkeypatch, capsys):
    """Type words after scripts/restore.py, within this process; gives the exit status, the last line of stdout, and stderr."""

    def type_words(*words: str, checkpoint: str = "w.safetensors") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["restore.py", *words, "--checkpoint", checkpoint, "--device", "cpu"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            restore()
        captured = capsys.readouterr()
        return exit_.value.code, (captured.out.splitlines() or [""])[-1], captured.err

    return type_words

"""What a packed store notices: swapped pixels, an older format, a second packing of the same store."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture

from irformer.data.packing import folder_source, open_source, pack_set, verify_set
from irformer.data.store import PackedImages
from irformer.errors import UserError
from irformer.imaging.images import fingerprint, write_image


def quiet(*_progress) -> None:
    pass


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", picture(40, 60, seed=i))
    return folder


def swap_two_pixels(store: Path) -> None:
    pixels = np.memmap(store / "hq.bin", np.uint8, mode="r+").reshape(2, 40, 60, 3)
    assert (pixels[1, 3, 4] != pixels[1, 20, 30]).any()
    before = fingerprint(np.array(pixels[1]))
    pixels[1, 3, 4], pixels[1, 20, 30] = pixels[1, 20, 30].copy(), pixels[1, 3, 4].copy()
    assert fingerprint(np.array(pixels[1])) == before  # which is why it takes a checksum
    pixels.flush()


def as_format_1(store: Path) -> None:
    """The index as the version before wrote it."""
    index = json.loads((store / "index.json").read_text())
    roles = {role: [{k: v for k, v in image.items() if k != "pixels_checksum"} for image in some] for role, some in index["roles"].items()}
    (store / "index.json").write_text(json.dumps({"format": 1, "roles": roles}))


@pytest.mark.parametrize("old", [False, True])
def test_two_swapped_pixels_are_found(clean, tmp_path, attempts, old):
    store = pack_set(str(clean), tmp_path, None, None, quiet)
    if old:
        as_format_1(store)
    assert verify_set(str(clean), tmp_path, None, None, quiet) == []
    attempts.handled("packed stores")
    swap_two_pixels(store)
    lines = verify_set(str(clean), tmp_path, None, None, quiet)
    assert lines == [f"{store / 'hq.bin'}: the pixels of 1.png differ from those that were packed: pack the set again"]
    attempts.refused("packed stores")


def test_a_store_of_format_1_is_read(clean, tmp_path, attempts):
    store = pack_set(str(clean), tmp_path, None, None, quiet)
    as_format_1(store)
    images, remark = open_source(folder_source(clean, None, 2), tmp_path / "packed", 2, 0)
    assert (type(images), remark) == (PackedImages, None)
    assert np.array_equal(images.hq(1), picture(40, 60, seed=1))
    attempts.handled("packed stores")


SLOW_PACK = """
import sys, time
from pathlib import Path
from irformer.data.packing import pack_set
def wait(done, total, name):
    print(done, flush=True)
    sys.stdin.readline()
pack_set(sys.argv[1], Path(sys.argv[2]), None, None, wait)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_packing_of_the_same_store_is_refused_and_disturbs_nothing(clean, tmp_path, attempts, killed):
    command = [sys.executable, "-c", SLOW_PACK, str(clean), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == "1\n"
        with pytest.raises(UserError) as raised:
            pack_set(str(clean), tmp_path, None, None, quiet)
        assert str(raised.value).endswith(": another process is packing this store: wait for it, or stop it")
        attempts.refused("packed stores")
        other = tmp_path / "other"
        other.mkdir()
        write_image(other / "a.png", picture(8, 8))
        pack_set(str(other), tmp_path, None, None, quiet)  # another store may be packed
        if killed:
            first.kill()
        else:
            first.stdin.write("\n\n\n")
            first.stdin.flush()
        assert first.wait(timeout=60) == (-9 if killed else 0)
    if killed:
        assert verify_set(str(clean), tmp_path, None, None, quiet) == []
    pack_set(str(clean), tmp_path, None, None, quiet)  # a killed process has let go
    assert verify_set(str(clean), tmp_path, None, None, quiet) == []
    assert not list((tmp_path / "packed").glob(".*"))
    attempts.handled("packed stores")


def test_a_file_that_is_replaced_while_it_is_packed_is_named(clean, tmp_path, attempts):
    def replace(done: int, _total: int, _name: str) -> None:
        if done == 1:
            write_image(clean / "1.png", picture(20, 30))

    with pytest.raises(UserError) as raised:
        pack_set(str(clean), tmp_path, None, None, replace)
    assert str(raised.value) == f"{clean / '1.png'}: the file was replaced during packing: pack the set again"
    assert list((tmp_path / "packed").iterdir()) == []
    attempts.refused("packed stores")

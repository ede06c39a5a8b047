"""The packed store: what it holds, what it refuses, and that nobody ever finds half of one."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from irformer.data.mirrored import MirroredImages
from irformer.data.mixtures import JoinedImages, chances
from irformer.data.packing import folder_source, open_source, pack_set, set_source, store_name, verify_set
from irformer.data.sources import FolderImages
from irformer.data.store import PackedImages, Store, changes
from irformer.errors import UserError
from irformer.imaging.images import read_image, write_image
from irformer.imaging.resize import imresize


def quiet(_done: int, _total: int, _name: str) -> None:
    pass


@pytest.fixture
def root(tmp_path):
    """A data folder with a DIV2K of three images, one gray and one with sides that 2 does not divide, and their official LR."""
    hq, lq = tmp_path / "DIV2K" / "DIV2K_train_HR", tmp_path / "DIV2K" / "DIV2K_train_LR_bicubic" / "X2"
    for folder in (hq, lq):
        folder.mkdir(parents=True)
    for i, size in enumerate([(40, 60), (61, 45), (50, 50)]):
        image = picture(*size, seed=i)
        write_image(hq / f"{i:04d}.png", image)
        write_image(lq / f"{i:04d}x2.png", imresize(image, size[0] // 2, size[1] // 2))
    Image.fromarray(picture(50, 50, 1)[..., 0]).save(hq / "0002.png")
    return tmp_path


def test_a_store_gives_the_pixels_of_its_files(root):
    seen = []
    folder = pack_set("div2k", root, None, None, lambda done, total, name: seen.append((done, total, name)))
    assert folder == root / "packed" / "DIV2K"
    assert seen[0] == (1, 6, "0000.png")
    assert seen[-1] == (6, 6, "0002x2.png")
    assert sorted(path.name for path in folder.iterdir()) == ["hq.bin", "index.json", "lq_x2.bin"]
    assert [image.gray for image in Store(folder).roles["hq"]] == [False, False, True]
    source = set_source("DIV2K", root, 2, lq_files=True)
    packed, remark = open_source(source, root / "packed", 2, 0)
    files, _ = open_source(source, None, 2, 0)
    assert (type(packed), type(files), remark) == (PackedImages, FolderImages, None)
    again = pickle.loads(pickle.dumps(packed))
    assert len(packed) == len(files) == 3
    for images in (packed, again):
        for i in range(3):
            assert (images.name(i), images.size(i)) == (files.name(i), files.size(i))
            assert (images.hq(i) == files.hq(i)).all()
            assert (images.lq(i) == files.lq(i)).all()
            assert (images.whole_hq(i) == files.whole_hq(i)).all()
    assert np.shares_memory(packed.hq(0), packed.hq(0))  # a view of the file: nothing is copied before a patch is cut
    assert not packed.hq(0).flags.writeable


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_sizes_are_those_of_the_pixels(root, scale):
    """In every source: `size(i)` is the shape of `hq(i)`, multiples of the scale, and `whole_size(i)` that of the file."""
    pack_set("DIV2K", root, None, None, quiet)
    source = set_source("DIV2K", root, scale, lq_files=False)
    packed, files = open_source(source, root / "packed", scale, 0)[0], open_source(source, None, scale, 0)[0]
    joined = JoinedImages([files, packed], chances([files, packed], None, "images"))
    mirrored = MirroredImages(files, side=24 * scale)
    for images in (files, packed, joined, mirrored):
        for i in range(len(images)):
            assert images.hq(i).shape == (*images.size(i), 3)
            assert all(side % scale == 0 for side in images.size(i))
            assert images.whole_hq(i).shape == (*images.whole_size(i), 3)
    assert files.whole_size(1) == (61, 45)
    assert (files.hq(1) == files.whole_hq(1)[: 61 // scale * scale, : 45 // scale * scale]).all()


def test_a_task_that_makes_its_own_lq_does_not_take_that_of_the_store(root):
    pack_set("DIV2K", root, None, None, quiet)
    for scale, lq_files in [(2, False), (3, True)]:
        images, _ = open_source(set_source("DIV2K", root, scale, lq_files), root / "packed", scale, 0)
        assert isinstance(images, PackedImages)
        assert images.lq(0) is None
        assert not images.has_lq


def test_folders_are_packed_with_their_degraded_images(root):
    hq, lq = root / "DIV2K" / "DIV2K_train_HR", root / "DIV2K" / "DIV2K_train_LR_bicubic" / "X2"
    folder = pack_set(str(hq), root, root / "stores", lq, quiet)
    assert folder.name == store_name(hq) != store_name(lq)
    assert folder.name.startswith("DIV2K-DIV2K_train_HR-")
    images, _ = open_source(folder_source(hq, lq, 2), root / "stores", 2, 0)
    assert isinstance(images, PackedImages)
    assert (images.lq(1) == read_image(lq / "0001x2.png")).all()
    assert verify_set(str(hq), root, root / "stores", lq, quiet) == []


def test_a_disk_that_cannot_hold_it_is_told_before_anything_is_decoded(root, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=20_000))
    decoded: list[str] = []
    needed = 3 * (40 * 60 + 61 * 45 + 50 * 50 + 20 * 30 + 30 * 22 + 25 * 25)
    with pytest.raises(UserError, match=rf"DIV2K: packing needs {needed:,} bytes .* but only 20,000 .* are free: .*paths\.packed=FOLDER"):
        pack_set("DIV2K", root, None, None, lambda *progress: decoded.append(progress[2]))
    assert not decoded
    assert not (root / "packed").exists()


def test_a_place_that_cannot_be_written_to_is_told(root):
    (root / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/DIV2K: cannot write the store .*: choose another location with paths\.packed=FOLDER"):
        pack_set("DIV2K", root, root / "file", None, quiet)


def test_an_interrupted_pack_leaves_the_old_store_or_none(root):
    def interrupt(done: int, _total: int, _name: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_set("DIV2K", root, None, None, interrupt)
    assert list((root / "packed").iterdir()) == []
    folder = pack_set("DIV2K", root, None, None, quiet)
    before = (folder / "hq.bin").read_bytes()
    write_image(root / "DIV2K" / "DIV2K_train_HR" / "0000.png", picture(40, 60, seed=9))
    with pytest.raises(KeyboardInterrupt):
        pack_set("DIV2K", root, None, None, interrupt)
    assert [path.name for path in (root / "packed").iterdir()] == ["DIV2K"]
    assert (folder / "hq.bin").read_bytes() == before
    # What a killed one leaves beside its place is in nobody's way.
    folder.rename(folder.with_name(".DIV2K.partial"))
    pack_set("DIV2K", root, None, None, quiet)
    assert [path.name for path in (root / "packed").iterdir()] == ["DIV2K"]
    assert (folder / "hq.bin").read_bytes() != before


def test_damaged_stores_are_refused(root):
    folder = pack_set("DIV2K", root, None, None, quiet)
    index = (folder / "index.json").read_text()
    (folder / "index.json").write_text(index[: len(index) // 2])
    with pytest.raises(UserError, match=r"index\.json: damaged: pack the set again"):
        Store(folder)
    (folder / "index.json").write_text(json.dumps({**json.loads(index), "format": 3}))
    with pytest.raises(UserError, match="the store has format 3, expected 2: pack the set again"):
        Store(folder)
    (folder / "index.json").write_text(index)
    with (folder / "hq.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"hq\.bin: 1,000 bytes long, expected 22,935 bytes"):
        Store(folder)
    (folder / "hq.bin").unlink()
    assert verify_set("DIV2K", root, None, None, quiet) == [f"{folder / 'hq.bin'}: missing, expected 22,935 bytes: pack the set again"]


def test_files_that_are_only_touched_have_not_changed(root):
    store = Store(pack_set("DIV2K", root, None, None, quiet))
    roles = {"hq": sorted((root / "DIV2K" / "DIV2K_train_HR").iterdir())}
    for path in roles["hq"]:
        os.utime(path, (0, 0))
    assert changes(store, roles) == []
    (root / "DIV2K" / "DIV2K_train_HR" / "0001.png").write_bytes(roles["hq"][1].read_bytes()[:-1] + b"x")
    assert changes(store, roles) == [f"{roles['hq'][1]}: changed since it was packed into {store.folder}"]


def test_verify_names_everything_that_is_wrong(root):
    hq, lq = root / "DIV2K" / "DIV2K_train_HR", root / "DIV2K" / "DIV2K_train_LR_bicubic" / "X2"
    folder = pack_set("DIV2K", root, None, None, quiet)
    assert verify_set("DIV2K", root, None, None, quiet) == []

    # One bit of a source, with its size and time as before; one byte of the store.
    status = (hq / "0000.png").stat()
    Image.fromarray(picture(61, 45, seed=1)).save(root / "other.jpg")
    data = bytearray((hq / "0000.png").read_bytes())
    data[len(data) // 2] ^= 1
    (hq / "0000.png").write_bytes(bytes(data))
    os.utime(hq / "0000.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    with (folder / "lq_x2.bin").open("r+b") as file:
        file.seek(20 * 30 * 3 + 5)
        value = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 255]))
    lines = verify_set("DIV2K", root, None, None, quiet)
    assert lines == [
        f"{hq / '0000.png'}: cannot be decoded, the file is damaged: restore or remove it",
        f"{hq / '0000.png'}: changed since it was packed into {folder}",
        f"{folder / 'lq_x2.bin'}: the pixels of 0001x2.png differ from those that were packed: pack the set again",
    ]
    with pytest.raises(UserError, match=r"0000\.png: cannot be decoded"):
        pack_set("DIV2K", root, None, None, quiet)

    write_image(hq / "0000.png", picture(42, 60))
    shutil.rmtree(folder)
    assert verify_set("DIV2K", root, None, None, quiet) == ["DIV2K: 0000.png 60x42 with 0000x2.png 30x20 do not match"]
    with pytest.raises(UserError, match=r"1 pairs of DIV2K do not match, the first: 0000\.png 60x42 with 0000x2\.png 30x20"):
        pack_set("DIV2K", root, None, None, quiet)
    (lq / "0001x2.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images in .* have no degraded counterpart"):
        verify_set("DIV2K", root, None, None, quiet)


def test_known_test_sets_are_verified_with_their_lq(root):
    for place, size in [("HR", (40, 60)), ("LR_bicubic/X2", (20, 30)), ("LR_bicubic/X4", (10, 10))]:
        (root / "Set5" / place).mkdir(parents=True)
        write_image(root / "Set5" / place / "baby.png", picture(*size))
    for place in ("input", "target"):
        (root / "Rain100L" / place).mkdir(parents=True)
        write_image(root / "Rain100L" / place / "1.png", picture(40, 60))
    lines = verify_set("set5", root, None, None, quiet)
    assert len(lines) == 1
    assert "LR_bicubic/X4/baby.png 10x10: the sizes do not match at scale 4" in lines[0]
    assert verify_set("Rain100L", root, None, None, quiet) == []
    write_image(root / "Rain100L" / "input" / "1.png", picture(40, 58))
    assert "input/1.png 58x40: the sizes do not match at scale 1" in verify_set("Rain100L", root, None, None, quiet)[0]
    (root / "Set5" / "LR_bicubic" / "X2" / "baby.png").write_bytes(b"")
    assert verify_set("Set5", root, None, None, quiet) == [
        f"{root / 'Set5' / 'LR_bicubic' / 'X2' / 'baby.png'}: not a readable image (0 bytes): restore or remove the file"
    ]
    with pytest.raises(UserError, match="B100 was not found below"):
        verify_set("BSD100", root, None, None, quiet)


def test_only_sets_and_folders_can_be_packed(root):
    with pytest.raises(UserError, match=r"DIV3K: neither a training set nor a folder; known: DIV2K, Flickr2K"):
        pack_set("DIV3K", root, None, None, quiet)
    with pytest.raises(UserError, match="Flickr2K was not found below"):
        pack_set("Flickr2K", root, None, None, quiet)
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        pack_set(str(root / "empty"), root, None, None, quiet)

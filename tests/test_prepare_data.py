"""python scripts/prepare_data.py: sets listed and downloaded, with a server in place of the ones of the world."""

import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture
from web import Server, serving

from irformer.commands.prepare_data import prepare_data
from irformer.data.sources import find_training_set
from irformer.datasets.catalog import TEST_SETS, TRAINING_SETS
from irformer.datasets.origins import ORIGINS, Archive
from irformer.errors import UserError
from irformer.imaging.images import write_image

REPOSITORY = Path(__file__).parent.parent

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys) -> Typed:
    """Type words after prepare_data.py, within this process: exit status, stdout, stderr. The data folder is tmp_path/data."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("IRFORMER_DATA", str(tmp_path / "data"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepare_data.py", *words])
        status = 0
        try:
            prepare_data()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def png(seed: int) -> bytes:
    return cv2.imencode(".png", picture(12, 18, seed=seed))[1].tobytes()


def zipped(*members: str, noise: int = 0) -> bytes:
    """A zip archive of pictures, and of some bytes of something else."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        pack.writestr("noise.bin", np.random.default_rng(0).bytes(noise))
        for seed, name in enumerate(members):
            pack.writestr(name, png(seed))
    return out.getvalue()


def serve(server: Server, archive: Archive, content: bytes, images: int | None = None, **known: object) -> Archive:
    """An archive of the catalog as our server has it: its address and sum, and, to be quick, fewer images in it."""
    server.files[f"/{archive.file}"] = content
    parts = archive.parts if images is None else tuple(replace(part, images=images) for part in archive.parts)
    known = {"size": None, "exact": False, "md5": hashlib.md5(content).hexdigest() if archive.md5 else "", **known}
    return replace(archive, url=f"{server.address}/{archive.file}", parts=parts, **known)


DIV2K = [
    ("DIV2K_train_HR/", "DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png"),
    ("DIV2K_train_LR_bicubic/X2/0001x2.png", "DIV2K_train_LR_bicubic/X2/0002x2.png"),
    ("DIV2K_train_LR_bicubic/X3/0001x3.png", "DIV2K_train_LR_bicubic/X3/0002x3.png"),
    ("DIV2K_train_LR_bicubic/X4/0001x4.png", "DIV2K_train_LR_bicubic/X4/0002x4.png"),
]


@pytest.fixture
def div2k(server, monkeypatch) -> Server:
    """DIV2K with two images on our server."""
    known = ORIGINS["DIV2K"]
    archives = tuple(serve(server, archive, zipped(*names), 2) for archive, names in zip(known.archives, DIV2K, strict=True))
    monkeypatch.setitem(ORIGINS, "DIV2K", replace(known, images=2, archives=archives))
    return server


BENCHMARK = [f"benchmark/{name}/{folder}/{i}.png" for name in ("Set5", "Set14") for folder in ("HR", "LR_bicubic/X2") for i in (1, 2)]


@pytest.fixture
def benchmark_sets(server, monkeypatch) -> Server:
    """Set5 and Set14 with two images each in one archive on our server."""
    archive = serve(server, ORIGINS["Set5"].archives[0], zipped(*BENCHMARK), 2)
    for name in ("Set5", "Set14"):
        monkeypatch.setitem(ORIGINS, name, replace(ORIGINS[name], images=2, archives=(archive,)))
    for name in ("B100", "Urban100"):
        monkeypatch.setitem(ORIGINS, name, replace(ORIGINS[name], archives=(replace(archive, url=f"{server.address}/gone"),), mirrors=()))
    return server


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def table(out: str) -> dict[str, str]:
    """The rows of the list by the name of the set, two and more spaces as one bar."""
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    return {row[0]: " | ".join(row[1:]) for row in rows if row[0] in ORIGINS or row[0] == "sample"}


def test_list_with_nothing_on_disk(tmp_path):
    """In a process of its own, without a terminal, below a folder that does not exist."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "prepare_data.py"), "list"]
    kept = {name: value for name, value in os.environ.items() if name != "IRFORMER_DATA"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=kept, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert list(rows) == [*ORIGINS, "sample"]
    assert rows["DIV2K"] == "training SR, noise, JPEG | 800 | no | 3.5 GB | academic research only | download"
    note = rows["Kodak24"].rpartition(" | ")[2]
    assert f" {note}: https://github.com/cszn/FFDNet/tree/master/testsets" in done.stdout.splitlines()
    assert not (tmp_path / "data").exists()


def test_list_finds_sets_in_the_trees_of_other_projects(typed, tmp_path):
    root = tmp_path / "data"
    for folder, images in (("benchmark/Set5/HR", 5), ("benchmark/Set5/LR_bicubic/X4", 5), ("BSDS100/GTmod12", 3), ("DIV2K_train_HR", 800)):
        (root / folder).mkdir(parents=True)
        for i in range(images):
            (root / folder / f"{i}.png").touch()
    rows = table(typed("list")[1])
    assert "5 in benchmark/Set5/HR, LR X4 |" in rows["Set5"]
    assert "| 3 of 100 in BSDS100/GTmod12 |" in rows["B100"]
    assert "| 800 in DIV2K_train_HR |" in rows["DIV2K"]
    assert "| no |" in rows["Set14"]


def test_every_known_set_says_where_it_comes_from():
    without = {*TRAINING_SETS, *TEST_SETS} - set(ORIGINS)
    assert without <= {"Rain100L_sample"}, "sets of the catalog that origins.py does not know"


def test_download(div2k, typed, tmp_path):
    status, out, err = typed("download", "div2k", "--scales", "2", "4")
    assert (status, err) == (0, "")
    assert "DIV2K: academic research only; see https://data.vision.ee.ethz.ch/cvl/DIV2K/" in out
    root = tmp_path / "data"
    assert tree(root) == [
        "DIV2K/DIV2K_train_HR/0001.png",
        "DIV2K/DIV2K_train_HR/0002.png",
        "DIV2K/DIV2K_train_LR_bicubic/X2/0001x2.png",
        "DIV2K/DIV2K_train_LR_bicubic/X2/0002x2.png",
        "DIV2K/DIV2K_train_LR_bicubic/X4/0001x4.png",
        "DIV2K/DIV2K_train_LR_bicubic/X4/0002x4.png",
    ]
    pairs = find_training_set("DIV2K", root, 4)
    assert [(pair.hq.name, pair.lq.name) for pair in pairs] == [("0001.png", "0001x4.png"), ("0002.png", "0002x4.png")]
    # What is there is not asked for again, and what is not, is.
    asked = len(div2k.asked)
    assert typed("download", "DIV2K") == (0, f"DIV2K: already on disk, 2 images in {root}/DIV2K/DIV2K_train_HR\n", "")
    assert len(div2k.asked) == asked
    assert typed("download", "DIV2K", "--scales", "2", "3")[0] == 0
    assert div2k.asked[asked:] == ["/DIV2K_train_LR_bicubic_X3.zip"]


def test_an_archive_of_several_sets_is_fetched_once(benchmark_sets, typed, tmp_path):
    assert typed("download", "Set14", "Set5")[0] == 0
    assert benchmark_sets.asked == ["/benchmark.tar"]
    expected = [f"{name}/{folder}/{i}.png" for name in ("Set14", "Set5") for folder in ("HR", "LR_bicubic/X2") for i in (1, 2)]
    assert tree(tmp_path / "data") == expected
    shutil.rmtree(tmp_path / "data" / "Set5")
    assert typed("download", "benchmark")[0] == 1  # B100 and Urban100 are elsewhere in this test
    assert tree(tmp_path / "data") == expected  # and no archive stays for a set that was there already


def test_a_lie_about_the_sum_puts_nothing_in_place(div2k, typed, tmp_path, monkeypatch):
    known = ORIGINS["DIV2K"]
    actual = known.archives[0].md5
    lie = replace(known.archives[0], md5=32 * "0")
    monkeypatch.setitem(ORIGINS, "DIV2K", replace(known, archives=(lie,)))
    status, _, err = typed("download", "DIV2K")
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path}/data/DIV2K_train_HR.zip.part: md5 is {actual}, expected {32 * '0'} for {lie.url}: ")
    assert err.endswith("in transit; download it again\n")
    assert tree(tmp_path / "data") == []
    # A sum from a single source may be wrong itself: the file stays, and the user may say so.
    monkeypatch.setitem(ORIGINS, "DIV2K", replace(known, archives=(replace(lie, confirmed=False),)))
    assert f"--accept-md5 {actual} if you trust it" in typed("download", "DIV2K")[2]
    asked = len(div2k.asked)
    assert typed("download", "DIV2K", "--accept-md5", actual)[0] == 0
    assert len(div2k.asked) == asked
    assert tree(tmp_path / "data") == ["DIV2K/DIV2K_train_HR/0001.png", "DIV2K/DIV2K_train_HR/0002.png"]


def test_a_source_that_is_gone_gives_the_way_by_hand_and_the_other_sets_come(benchmark_sets, typed, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/DIV2K_train_HR.zip"
    known = ORIGINS["DIV2K"]
    monkeypatch.setitem(ORIGINS, "DIV2K", replace(known, archives=(replace(known.archives[0], url=nobody),)))
    status, _, err = typed("download", "DIV2K", "Set5")
    assert status == 1
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: {nobody} cannot be reached ([Errno 111] Connection refused). By hand: "
        f"download DIV2K_train_HR.zip with a browser from {nobody} "
        f"or https://data.vision.ee.ethz.ch/cvl/DIV2K/, move it to {tmp_path}/data and run the same command, "
        f"or move the images to {tmp_path}/data/DIV2K/DIV2K_train_HR"
    ]
    assert tree(tmp_path / "data")[:2] == ["Set5/HR/1.png", "Set5/HR/2.png"]


def test_what_could_be_had_of_a_set_leaves_no_archive_behind(div2k, typed, tmp_path):
    del div2k.files["/DIV2K_train_LR_bicubic_X2.zip"]
    status, _, err = typed("download", "DIV2K", "--scales", "2", "3")
    assert (status, err.count("error: ")) == (1, 1)
    assert f"move the images to {tmp_path}/data/DIV2K/DIV2K_train_LR_bicubic/X2" in err
    assert {name.rpartition("/")[0] for name in tree(tmp_path / "data")} == {"DIV2K/DIV2K_train_HR", "DIV2K/DIV2K_train_LR_bicubic/X3"}


def test_a_mirror_is_asked_where_the_source_is_gone(server, typed, tmp_path, monkeypatch):
    known = ORIGINS["Flickr2K"]
    gone = replace(known.archives[0], url=f"{server.address}/gone.tar")
    mirror = serve(server, known.mirrors[0], zipped("any/000001.png", "any/000002.png", "any/000001x2.png"), 2)
    monkeypatch.setitem(ORIGINS, "Flickr2K", replace(known, images=2, archives=(gone,), mirrors=(mirror,)))
    status, out, _ = typed("download", "Flickr2K")
    assert status == 0
    assert f"Flickr2K: {gone.url} answers 404 Not Found; trying a mirror" in out
    assert "no checksum of Flickr2K.zip is published: check every file with prepare_data.py verify Flickr2K" in out
    assert tree(tmp_path / "data") == ["Flickr2K/Flickr2K_HR/000001.png", "Flickr2K/Flickr2K_HR/000002.png"]


def test_sets_that_only_a_person_can_get_say_how(typed, tmp_path):
    status, out, err = typed("download", "Rain13K", "kodak24")
    data = tmp_path / "data"
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "error: Rain13K cannot be downloaded automatically: download it from https://github.com/swz30/Restormer/tree/main/Deraining "
        f"and move its images to {data}/Rain13K/target and {data}/Rain13K/input",
        "error: Kodak24 cannot be downloaded automatically: download it from https://github.com/cszn/FFDNet/tree/master/testsets "
        f"and move its images to {data}/Kodak24/HR",
    ]


def test_an_archive_that_was_put_there_by_hand_is_used_and_kept(div2k, typed, tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "DIV2K_train_HR.zip"
    file.write_bytes(div2k.files["/DIV2K_train_HR.zip"])
    assert typed("download", "DIV2K")[0] == 0
    assert div2k.asked == []
    assert tree(tmp_path / "data") == ["DIV2K/DIV2K_train_HR/0001.png", "DIV2K/DIV2K_train_HR/0002.png", file.name]


def test_a_part_of_a_set_is_not_touched(div2k, typed, tmp_path):
    folder = tmp_path / "data" / "DIV2K_train_HR"
    folder.mkdir(parents=True)
    (folder / "0001.png").write_bytes(b"mine")
    status, _, err = typed("download", "DIV2K")
    assert (status, err) == (
        1,
        f"error: {folder} contains 1 images, expected 2 of DIV2K: it is not changed; move it elsewhere, then run the same command again\n",
    )
    assert div2k.asked == []
    assert (folder / "0001.png").read_bytes() == b"mine"


def test_a_disk_for_the_archive_alone_is_too_small(div2k, typed, tmp_path, monkeypatch):
    size = len(div2k.files["/DIV2K_train_HR.zip"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 2 * size - 1))
    status, _, err = typed("download", "DIV2K")
    assert status == 1
    assert err.startswith("error: DIV2K_train_HR.zip (the download, and the same amount unpacked) needs ")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 2 * size))
    assert typed("download", "DIV2K")[0] == 0


def test_bsds500_goes_into_training_and_test_sets_apart(server, typed, tmp_path, data_root, monkeypatch):
    """Its train and test images are BSDS400; its val images are B100, and 68 of them CBSD68."""
    folder = "BSDS500-master/BSDS500/data/images"
    val = [path.stem for path in (data_root / "B100" / "HR").iterdir()]
    names = [f"{folder}/{split}/{split}{i}.jpg" for split, count in (("train", 200), ("test", 200)) for i in range(count)]
    archive = serve(server, ORIGINS["BSDS400"].archives[0], zipped(*names, *(f"{folder}/val/{name}.jpg" for name in val)))
    for name in ("BSDS400", "CBSD68", "B100"):
        monkeypatch.setitem(ORIGINS, name, replace(ORIGINS[name], archives=(archive,)))
    status, _, err = typed("download", "BSDS400", "CBSD68", "B100")
    assert (status, err) == (0, "")
    assert server.asked == ["/BSDS500-master.zip"]
    root = tmp_path / "data"
    assert {path.name for path in (root / "BSDS400/HR").iterdir()} == {name.rpartition("/")[2] for name in names}
    for name in ("CBSD68", "B100"):
        assert {path.stem for path in (root / name / "HR").iterdir()} == {path.stem for path in (data_root / name / "HR").iterdir()}


def test_ctrl_c_leaves_what_has_arrived_and_the_same_command_goes_on(server, tmp_path):
    content = zipped(*DIV2K[0], noise=1_000_000)
    server.files["/DIV2K_train_HR.zip"] = content
    server.stops, server.stall = [len(content) // 2], 30.0
    program = (
        "import sys; from dataclasses import replace; from irformer.commands.prepare_data import prepare_data\n"
        "from irformer.datasets.origins import ORIGINS\n"
        "known = ORIGINS['DIV2K']\n"
        "parts = tuple(replace(part, images=2) for part in known.archives[0].parts)\n"
        f"archive = replace(known.archives[0], url='{server.address}/DIV2K_train_HR.zip', parts=parts, exact=False, md5='')\n"
        "ORIGINS['DIV2K'] = replace(known, images=2, archives=(archive,))\n"
        "prepare_data()\n"
    )
    command = [sys.executable, "-c", program, "download", "DIV2K", "--data", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    part = tmp_path / "DIV2K_train_HR.zip.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert (first.returncode, err.splitlines()[-1]) == (130, "stopped: received data is kept in .part files, and the same command resumes")
    arrived = part.stat().st_size
    assert 0 < arrived < len(content)
    second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert second.returncode == 0, second.stderr
    assert server.asked == ["/DIV2K_train_HR.zip", f"/DIV2K_train_HR.zip bytes={arrived}-"]
    assert tree(tmp_path) == ["DIV2K/DIV2K_train_HR/0001.png", "DIV2K/DIV2K_train_HR/0002.png"]


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """DIV2K of three images with LR for x2, in tmp_path/data."""
    monkeypatch.setitem(ORIGINS, "DIV2K", replace(ORIGINS["DIV2K"], images=3))
    root = tmp_path / "data" / "DIV2K"
    for folder, size, name in (("DIV2K_train_HR", (24, 36), "{:04d}.png"), ("DIV2K_train_LR_bicubic/X2", (12, 18), "{:04d}x2.png")):
        (root / folder).mkdir(parents=True)
        for i in (1, 2, 3):
            write_image(root / folder / name.format(i), picture(*size, seed=i))
    return root


def test_verify_names_everything_that_is_wrong(pictures, typed):
    hq, lq = pictures / "DIV2K_train_HR", pictures / "DIV2K_train_LR_bicubic" / "X2"
    assert typed("verify", "DIV2K") == (0, "DIV2K: OK\n", "")
    write_image(lq / "0002x2.png", picture(12, 17))
    (hq / "0001.png").rename(hq / "1.png")
    (lq / "0001x2.png").rename(lq / "1x2.png")
    (hq / "0004.png").write_bytes((hq / "0003.png").read_bytes())
    (lq / "0004x2.png").write_bytes((lq / "0003x2.png").read_bytes())
    status, out, err = typed("verify", "DIV2K")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        f"{hq}: 4 images, expected 3",
        f"{hq}: missing 0001",
        f"{hq}: unexpected 0004, 1",
        "DIV2K: 0002.png 36x24 with 0002x2.png 17x12 do not match",
        "DIV2K: 4 problems",
    ]
    content = (hq / "0003.png").read_bytes()
    (hq / "0003.png").write_bytes(content[: len(content) // 2])
    (hq / "0002.png").write_bytes(b"")
    status, out, _ = typed("verify", "DIV2K")
    assert status == 1
    assert f"{hq / '0003.png'}: truncated, the file ends before its end marker: restore or remove the file" in out.splitlines()
    assert f"{hq / '0002.png'}: not a readable image (0 bytes): restore or remove the file" in out.splitlines()


def test_pack_and_what_verify_and_list_say_of_the_store(pictures, typed, tmp_path):
    store = tmp_path / "data" / "packed" / "DIV2K"
    status, out, err = typed("pack", "div2k")
    assert (status, err) == (0, "")
    assert out.startswith(f"DIV2K: packed into {store}, ")
    assert "| 3 in DIV2K/DIV2K_train_HR, LR X2, packed |" in table(typed("list")[1])["DIV2K"]
    assert typed("verify", "DIV2K")[:2] == (0, "DIV2K: OK\n")
    changed = pictures / "DIV2K_train_HR" / "0002.png"
    write_image(changed, picture(24, 36, seed=9))
    assert typed("verify", "DIV2K")[:2] == (1, f"{changed}: changed since it was packed into {store}\nDIV2K: 1 problem\n")


def test_a_folder_of_ones_own_is_packed_and_checked_too(pictures, typed, tmp_path):
    hq, lq = str(pictures / "DIV2K_train_HR"), str(pictures / "DIV2K_train_LR_bicubic" / "X2")
    status, out, _ = typed("pack", hq, "--lq", lq, "--packed", str(tmp_path / "stores"))
    assert status == 0
    assert f"packed into {tmp_path}/stores/" in out
    assert typed("verify", hq, "--lq", lq, "--packed", str(tmp_path / "stores"))[0] == 0
    assert not (tmp_path / "data" / "packed").exists()


def test_a_set_that_is_not_there_is_no_set_that_is_well(typed):
    status, out, _ = typed("verify", "Flickr2K", "Set14")
    assert status == 1
    assert "run python scripts/prepare_data.py download Flickr2K, or choose another folder" in out
    assert out.splitlines()[-1] == "Set14: 1 problem"
    assert "run python scripts/prepare_data.py download BSDS400" in typed("pack", "BSDS400")[2]


def test_unknown_names(typed):
    assert typed("download", "DIV3K")[2].endswith("did you mean DIV2K?\n")
    assert typed("download", "sample")[2] == "error: sample comes with scikit-image and is always available\n"


def test_a_missing_set_names_the_command_that_gets_it(tmp_path):
    with pytest.raises(UserError, match=r"DIV2K was not found below .*: run python scripts/prepare_data\.py download DIV2K, or choose"):
        find_training_set("DIV2K", tmp_path, 2)
    with pytest.raises(UserError, match=r"WED was not found below .*: download it from https://ece\.uwaterloo\.ca/"):
        find_training_set("WED", tmp_path, 1)

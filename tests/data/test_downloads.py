"""Downloads from a server that misbehaves, and archives that do: what arrives is whole and right, or is not there."""

import hashlib
import io
import re
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from web import Server, serving

from irformer.datasets.archives import require_space, unpack
from irformer.datasets.downloads import UnreachableError, fetch, md5, require_checksum
from irformer.datasets.origins import Archive, Part
from irformer.errors import UserError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
NO_QUESTIONS = lambda missing, whole: None  # noqa: E731


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["/set.zip"] = CONTENT
        yield state


def archive(server: Server, **known: object) -> Archive:
    return Archive(f"{server.address}/set.zip", "set.zip", (), **known)


def get(server: Server, folder: Path, **known: object) -> bytes:
    return fetch(archive(server, **known), folder, NO_QUESTIONS, pause=0).read_bytes()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.stops = [1_000_000, 500_000]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == ["/set.zip", "/set.zip bytes=1000000-", "/set.zip bytes=1500000-"]


def test_what_is_complete_is_not_asked_for(server, tmp_path):
    assert get(server, tmp_path) == CONTENT
    server.files.clear()
    assert get(server, tmp_path) == CONTENT
    assert server.asked == ["/set.zip"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, tmp_path):
    server.ranges = False
    server.stops = [1_000_000]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == ["/set.zip", "/set.zip bytes=1000000-"]


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_between_two_tries_is_never_mixed(server, tmp_path, heeds_if_range):
    """The new file in whole: the server heeds If-Range, or, where it does not, the part that it sends has another ETag."""
    changed = np.random.default_rng(1).bytes(3_000_000)
    server.heeds_if_range = heeds_if_range
    server.stops = [1_000_000]

    def change(state: Server) -> None:
        if len(state.asked) == 1:
            state.files["/set.zip"], state.etag = changed, '"two"'

    server.before = change
    assert get(server, tmp_path) == changed
    again = [] if heeds_if_range else ["/set.zip"]
    assert server.asked == ["/set.zip", "/set.zip bytes=1000000-", *again]


def test_without_an_etag_or_a_date_a_broken_download_starts_over(server, tmp_path):
    server.etag = ""
    server.stops = [1_000_000]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == ["/set.zip", "/set.zip"]


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    get(server, tmp_path)
    server.files["/set.zip"] = CONTENT[:1_000_000]
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:2_000_000])
    assert get(server, tmp_path) == CONTENT[:1_000_000]


def test_a_file_of_unknown_length_arrives_and_is_then_known(server, tmp_path):
    server.told_length = False
    assert get(server, tmp_path) == CONTENT
    assert get(server, tmp_path) == CONTENT
    assert server.asked == ["/set.zip"]


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.statuses = [503, 429]
    assert get(server, tmp_path) == CONTENT
    assert len(server.asked) == 3


def test_a_file_that_is_gone_is_told_at_once(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(UnreachableError, match=r"^http://127\.0\.0\.1:\d+/set\.zip answers 404 Not Found$"):
        get(server, tmp_path)
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_where_nobody_answers(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.zip"
    with pytest.raises(UnreachableError, match=r"set\.zip cannot be reached \(.*refused.*\)$"):
        fetch(Archive(url, "set.zip", ()), tmp_path, NO_QUESTIONS, pause=0)


def test_a_line_that_always_breaks_is_given_up_and_says_what_stays(server, tmp_path):
    server.stops = [1_000_000] + [0] * 9
    with pytest.raises(UnreachableError, match=r"broke off after 1000000 of 3000000 bytes\); 1000000 bytes are kept in .*set\.zip\.part"):
        get(server, tmp_path)
    assert len(server.asked) == 5  # one that got further, four that did not


def test_a_web_page_and_a_file_of_another_size_are_refused_before_they_are_read(server, tmp_path):
    with pytest.raises(UnreachableError, match="has 3000000 bytes, expected 3000001: it is a different file"):
        get(server, tmp_path, size=3_000_001, exact=True)
    server.type = "text/html; charset=utf-8"
    with pytest.raises(UnreachableError, match="answers with a web page instead of the file"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 5_000_000))

    def space(missing: int, whole: int) -> None:
        require_space(tmp_path / "not" / "yet", missing + whole, "set.zip")

    with pytest.raises(UserError, match=r"^set\.zip needs 6\.0 MB, and the disk of .* has 5\.0 MB free: free some space, or .* --data"):
        fetch(archive(server), tmp_path, space)
    assert (tmp_path / "set.zip.part").stat().st_size == 0


def test_a_folder_that_cannot_be_written_is_not_a_broken_line(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"set\.zip\.part cannot be written: (Not a directory|File exists)"):
        get(server, tmp_path / "file")
    assert server.asked == []


def test_sums(tmp_path):
    file = tmp_path / "set.zip"
    file.write_bytes(b"irformer")
    actual = hashlib.md5(b"irformer").hexdigest()
    assert md5(file) == actual
    sums = {"md5": 32 * "0"}
    require_checksum(Archive("http://a/set.zip", "set.zip", (), md5=actual), file)
    require_checksum(Archive("http://a/set.zip", "set.zip", ()), file)
    require_checksum(Archive("http://a/set.zip", "set.zip", (), **sums), file, accepted=actual.upper())
    both = f"^{re.escape(str(file))}: md5 is {actual}, expected {32 * '0'} for http://a/set.zip: the file is damaged or was modified"
    with pytest.raises(UserError, match=both + " in transit; download it again$"):
        require_checksum(Archive("http://a/set.zip", "set.zip", (), **sums, confirmed=True), file)
    with pytest.raises(UserError, match=both + f", or the expected checksum, which comes from a single source, .* --accept-md5 {actual}"):
        require_checksum(Archive("http://a/set.zip", "set.zip", (), **sums), file)


# Archives

PARTS = (
    Part("Set2", ("*Set2/HR/*.png",), "Set2/HR", 2),
    Part("Set2", ("*Set2/LR/*.png",), "Set2/LR", 2, required=False),
)
FILES = {"top/Set2/HR/a.png": b"a", "top/Set2/HR/b.png": b"bb", "top/readme.txt": b"read me", "top/Set2/HR/._a.png": b"of a Mac"}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as pack:
            for name, content in files.items():
                pack.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_what_belongs_to_a_set_goes_where_people_have_it(tmp_path, name):
    file = write_archive(tmp_path / name, FILES)
    root = tmp_path / "data"
    assert unpack(file, PARTS, root) == [root / "Set2" / "HR"]
    assert tree(root) == {"Set2/HR/a.png": b"a", "Set2/HR/b.png": b"bb"}
    more = write_archive(tmp_path / f"more-{name}", {"Set2/LR/ax2.png": b"1", "Set2/LR/bx2.png": b"2"})
    assert unpack(more, PARTS[1:], root) == [root / "Set2" / "LR"]  # beside what is there
    assert tree(root) == {"Set2/HR/a.png": b"a", "Set2/HR/b.png": b"bb", "Set2/LR/ax2.png": b"1", "Set2/LR/bx2.png": b"2"}


@pytest.mark.parametrize("evil", ["../evil.png", "top/../../evil.png", "/tmp/evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("name", ["set.zip", "set.tar"])
def test_paths_that_lead_out_are_refused(tmp_path, evil, name):
    file = write_archive(tmp_path / name, {**FILES, evil: b"evil"})
    with pytest.raises(UserError, match=rf"set\.\w+: contains the path {re.escape(evil)}, which leads outside: nothing was unpacked"):
        unpack(file, PARTS, tmp_path / "data")
    assert tree(tmp_path / "data") == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, "zip"])
def test_links_in_the_place_of_images_are_refused(tmp_path, kind):
    if kind == "zip":
        file = write_archive(tmp_path / "set.zip", {"Set2/HR/a.png": b"a"})
        with zipfile.ZipFile(file, "a") as pack:
            link = zipfile.ZipInfo("Set2/HR/b.png")
            link.external_attr = 0o120777 << 16
            pack.writestr(link, "/etc/hostname")
    else:
        file = write_archive(tmp_path / "set.tar", {"Set2/HR/a.png": b"a"})
        with tarfile.open(file, "a") as tar:
            link = tarfile.TarInfo("Set2/HR/b.png")
            link.type, link.linkname = kind, "/etc/hostname"
            tar.addfile(link)
    with pytest.raises(UserError, match=r"Set2/HR/b\.png is a link, expected an image: nothing was unpacked"):
        unpack(file, PARTS, tmp_path / "data")
    assert tree(tmp_path / "data") == {}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Set2/HR/a.png": b"a"}, "contains 1 images for Set2/HR, expected 2"),
        ({"x.txt": b""}, "contains 0 images for Set2/HR, expected 2"),
        ({**FILES, "Set2/LR/a.png": b"a"}, "contains 1 images for Set2/LR, expected 2"),
        ({**FILES, "other/Set2/HR/a.png": b"a"}, r"contains two images a\.png for Set2/HR"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message + ".*: it is not the expected archive"):
        unpack(write_archive(tmp_path / "set.zip", files), PARTS, tmp_path / "data")
    assert tree(tmp_path / "data") == {}


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_a_damaged_archive_leaves_nothing(tmp_path, name):
    content = {f"Set2/HR/{letter}.png": np.random.default_rng(0).bytes(50_000) for letter in "ab"}
    file = write_archive(tmp_path / name, content)
    raw = bytearray(file.read_bytes())
    if name == "set.zip":
        raw[60_000] ^= 255  # within b.png, so that its checksum tells
    else:
        raw = raw[: len(raw) // 2]
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r"set\.\w+.*: (the archive is damaged|neither a zip nor a tar)"):
        unpack(file, PARTS, tmp_path / "data")
    assert tree(tmp_path / "data") == {}


def test_an_interrupted_unpacking_leaves_nothing_that_looks_like_a_set(tmp_path, monkeypatch):
    file = write_archive(tmp_path / "set.zip", FILES)
    copied = shutil.copyfileobj
    seen = []

    def interrupted(source: object, target: object, size: int) -> None:
        copied(source, target, size)
        seen.append(sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*")))
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(file, PARTS, tmp_path / "data")
    # A process that is killed leaves what stood there before the end: nothing under the name of the set.
    assert seen[1] == ["Set2.part", "Set2.part/HR", "Set2.part/HR/a.png", "Set2.part/HR/b.png"]
    assert list((tmp_path / "data").iterdir()) == []
    (tmp_path / "data" / "Set2.part" / "HR").mkdir(parents=True)
    (tmp_path / "data" / "Set2.part" / "HR" / "old.png").write_bytes(b"left by a killed process")
    monkeypatch.undo()
    unpack(file, PARTS, tmp_path / "data")
    assert tree(tmp_path / "data") == {"Set2/HR/a.png": b"a", "Set2/HR/b.png": b"bb"}


def test_unpacking_asks_the_disk_first(tmp_path, monkeypatch):
    file = write_archive(tmp_path / "set.zip", {"Set2/HR/a.png": bytes(3000), "Set2/HR/b.png": bytes(4000), "x.png": bytes(9000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 6999))
    with pytest.raises(UserError, match=r"unpacking set\.zip needs 7\.0 kB, and the disk of .* has 7\.0 kB free"):
        unpack(file, PARTS, tmp_path / "data")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 7000))
    unpack(file, PARTS, tmp_path / "data")


def test_a_folder_with_something_in_it_is_never_touched(tmp_path):
    file = write_archive(tmp_path / "set.zip", FILES)
    (tmp_path / "data" / "Set2" / "HR").mkdir(parents=True)
    unpack(file, PARTS, tmp_path / "data")  # an empty one is filled
    (tmp_path / "data" / "Set2" / "HR" / "a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="Set2/HR already exists and is not overwritten: move it elsewhere"):
        unpack(file, PARTS, tmp_path / "data")
    assert tree(tmp_path / "data")["Set2/HR/a.png"] == b"mine"

"""Folders of images: they keep their tree, and no input is ever overwritten."""

import os
from pathlib import Path

import pytest
from conftest import picture

from irformer.commands.restore_jobs import plan
from irformer.errors import UserError
from irformer.imaging.images import read_image, write_image
from restoring.places import tree


def test_a_folder_keeps_its_tree_and_a_second_run_skips(typed, place, attempts):
    (place / "photos" / "notes.txt").touch()
    (place / "photos" / ".hidden.png").touch()
    assert typed("photos", "out") == (0, "3 images restored x2: out; 1 file that is not an image", "")
    assert tree(place / "out") == ["a.png", "sub/b.png", "sub/deep/c.png"]
    assert read_image(place / "out" / "sub" / "deep" / "c.png").shape == (24, 32, 3)
    (place / "out" / "a.png").write_bytes(b"mine")
    (place / "out" / "sub" / "b.png").unlink()
    status, line, _ = typed("photos", "out")
    assert (status, line) == (
        0,
        "1 image restored x2: out; 2 already present, --overwrite replaces them; 1 file that is not an image",
    )
    assert (place / "out" / "a.png").read_bytes() == b"mine"
    assert typed("photos", "out", "--overwrite")[1].startswith("3 images restored")
    assert read_image(place / "out" / "a.png").shape == (24, 32, 3)
    for _ in range(3):
        attempts.handled("restore")


def test_several_inputs(typed, place, attempts):
    (place / "more").mkdir()
    write_image(place / "more" / "a.png", picture(12, 12))
    assert typed("photos/a.png", "photos", "more", "out")[0] == 0
    # The first a.png and the one of the folder are one file: it is restored once.
    assert tree(place / "out") == ["a.png", "more/a.png", "photos/sub/b.png", "photos/sub/deep/c.png"]
    attempts.handled("restore")


def test_inputs_of_one_stem_are_kept_apart(typed, place, attempts):
    write_image(place / "photos" / "a.jpg", picture(12, 12))
    assert typed("photos", "out")[0] == 0
    assert tree(place / "out") == ["a.jpg.png", "a.png.png", "sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def test_a_link_to_a_folder_is_followed_but_not_in_circles(typed, place, attempts):
    (place / "photos" / "circle").symlink_to(place / "photos")
    (place / "elsewhere").mkdir()
    write_image(place / "elsewhere" / "d.png", picture(12, 12))
    (place / "photos" / "link").symlink_to(place / "elsewhere")
    assert typed("photos", "out")[0] == 0
    assert tree(place / "out") == ["a.png", "link/d.png", "sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def test_patterns_keep_the_tree_below_their_fixed_part(typed, place, attempts):
    (place / "photos" / "sub" / "notes.txt").touch()
    assert typed("photos/**/*.png", "out")[:2] == (0, "2 images restored x2: out")
    assert tree(place / "out") == ["a.png", "sub/b.png"]
    assert typed("photos/s*", "more")[:2] == (0, "2 images restored x2: more; 1 file that is not an image")
    assert tree(place / "more") == ["sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def link(kind):
    def make(place):
        if kind == "hard":
            os.link(place / "photos" / "a.png", place / "other.png")
        else:
            (place / "other.png").symlink_to(place / "photos" / "a.png")

    return make


def folder(*names):
    def make(place):
        for name in names:
            (place / name).mkdir(parents=True)

    return make


def copies(place):
    for name in ("x", "y"):
        (place / name).mkdir()
        write_image(place / name / "a.png", picture(12, 12))


LOST = "which would be overwritten; choose another OUTPUT"
REFUSED = {
    "itself": (None, ["photos/a.png", "photos/a.png"], f"photos/a.png: is itself an input, {LOST}"),
    "another way of writing it": (
        None,
        ["photos/a.png", "photos/../photos/a.png"],
        f"photos/../photos/a.png: is the same file as the input photos/a.png, {LOST}",
    ),
    "its own folder": (None, ["photos/a.png", "photos"], f"photos/a.png: is itself an input, {LOST}"),
    "a hard link": (link("hard"), ["photos/a.png", "other.png"], f"other.png: is the same file as the input photos/a.png, {LOST}"),
    "a link": (link("soft"), ["photos/a.png", "other.png"], f"other.png: is the same file as the input photos/a.png, {LOST}"),
    "a link as input": (link("soft"), ["other.png", "photos/a.png"], f"photos/a.png: is the same file as the input other.png, {LOST}"),
    "with --overwrite": (None, ["photos/a.png", "photos/a.png", "--overwrite"], f"photos/a.png: is itself an input, {LOST}"),
    "a folder onto itself": (
        None,
        ["photos", "photos"],
        "photos: is inside the input folder photos, and would be read as input next time",
    ),
    "inside": (None, ["photos", "photos/out"], "photos/out: is inside the input folder photos, and would be read as input next time"),
    "inside by a link": (
        lambda place: (place / "way").symlink_to(place / "photos" / "sub"),
        ["photos", "way/out"],
        "way/out: is inside the input folder photos, and would be read",
    ),
    "onto inputs from below": (
        folder("photos/sub/sub"),
        ["photos/sub", "photos/sub/b.png", "photos"],
        f"photos/sub/b.png: is itself an input, {LOST}",
    ),
    "two of one name": (copies, ["x/a.png", "y/a.png", "out"], "x/a.png and y/a.png would both become out/a.png.png: restore them to"),
    "no such file": (None, ["nope.png", "out"], "nope.png: no such file or folder; expected an image or a folder of images"),
    "unknown input": (lambda place: (place / "n.txt").touch(), ["n.txt", "out"], "n.txt: unknown image format; known: .png, .jpg, "),
    "unknown output": (None, ["photos/a.png", "out.xyz"], "out.xyz: unknown image format; known: .png, .jpg, "),
    "empty folder": (folder("empty"), ["empty", "out"], "empty: no images (.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp) in this folder"),
    "folder to file": (lambda place: (place / "f").touch(), ["photos", "f"], "f: is a file, expected a folder, since photos is a folder"),
    "two to file": (
        lambda place: (place / "f.png").touch(),
        ["photos/a.png", "photos/sub/b.png", "f.png"],
        "f.png: is a file, expected a folder, since there are 2 inputs",
    ),
    "two to a new image": (
        None,
        ["photos/a.png", "photos", "f.png"],
        "f.png: has an image suffix, expected a folder, since there are 2",
    ),
    "below a file": (
        lambda place: (place / "f").touch(),
        ["photos", "f/out"],
        "f/out: cannot be written to (Not a directory); choose another",
    ),
    "read-only": (None, ["photos", "/proc/out"], "/proc/out: cannot be written to (No such file or directory); choose another OUTPUT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_something_is_refused_before_it_starts(typed, place, attempts, case):
    make, words, line = REFUSED[case]
    if make:
        make(place)
    before = {name: (place / name).read_bytes() for name in tree(place)}
    status, said, error = typed(*words)
    assert (status, said) == (1, "")
    assert error.startswith(f"error: {line}"), error
    assert error.count("\n") == 1
    assert {name: (place / name).read_bytes() for name in tree(place)} == before
    attempts.refused("restore")


def test_outputs_may_lie_around_inputs_where_nothing_collides(place, attempts):
    jobs = plan([Path("photos/sub")], Path("photos")).jobs
    assert [str(job.target) for job in jobs] == ["photos/b.png", "photos/deep/c.png"]
    attempts.handled("restore")
    with pytest.raises(UserError, match="is itself an input"):
        plan([Path("photos/a.png")], Path("photos"))
    attempts.refused("restore")


def test_an_existing_folder_is_no_output(typed, place, attempts):
    (place / "out" / "a.png").mkdir(parents=True)
    status, _, error = typed("photos", "out")
    assert (status, error) == (1, "error: out/a.png: is a folder, expected the output of photos/a.png; move it, or choose another OUTPUT\n")
    attempts.refused("restore")


def test_outputs_that_links_make_one_file(typed, place, attempts):
    (place / "photos" / "twin").mkdir()
    write_image(place / "photos" / "twin" / "b.png", picture(12, 12))
    (place / "out" / "sub").mkdir(parents=True)
    (place / "out" / "twin").symlink_to("sub")
    status, _, error = typed("photos", "out")
    assert status == 1
    assert error.startswith("error: photos/sub/b.png and photos/twin/b.png would both become out/twin/b.png")
    attempts.refused("restore")

"""scripts/benchmark.py with several checkpoints and tasks: tables as in papers, files at full precision, results that are kept."""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import picture
from latex_syntax import check_latex
from test_benchmark_command import files, measure, place, save, strictly, without_costs  # noqa: F401

from irformer.benchmarks import shared_work
from irformer.config.compose import compose
from irformer.config.tasks import build_task
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.image_costs import measure_set
from irformer.evaluation.restorers import BicubicRestorer, NetworkRestorer
from irformer.evaluation.results import ImageCost, Record, SetResult, read_records, write_records
from irformer.evaluation.tiling import TiledRestorer
from irformer.imaging.images import read_image, write_image
from irformer.metrics import MetricTraits
from irformer.weights.checkpoints import load_checkpoint


def rows_of(file):
    return list(csv.DictReader(io.StringIO(file.read_text())))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of two untrained networks for x2, and of one for x4."""
    folder = tmp_path_factory.mktemp("weights")
    save(folder / "a.safetensors")
    save(folder / "b.safetensors", seed=1)
    save(folder / "c.safetensors", "task=sr_x4", seed=2)
    return folder


@pytest.fixture
def three(place, weights):  # noqa: F811
    """A folder with two test sets and these weights."""
    for file in weights.iterdir():
        shutil.copy(file, place)
    return place


MANY = ("checkpoint=[bicubic,a.safetensors,b.safetensors,c.safetensors]", "tasks=[sr_x2,sr_x4]", "out=out")


def test_every_checkpoint_on_every_task_that_it_fits(three, measure, attempts):  # noqa: F811
    output = measure(*MANY, "reference=bicubic", sets="one,two")
    assert output.count("skipped: ") == 3
    assert "skipped: checkpoint=c.safetensors was trained for sr_x4 (scale 4, 3 channels), and task=sr_x2 needs scale 2" in output
    records = read_records(three / "out" / "results.json")
    found = [(record.checkpoint, record.task, list(record.test_sets)) for record in records]
    assert found == [
        (checkpoint, task, ["one", "two"])
        for checkpoint, task in [
            ("bicubic", "sr_x2"),
            ("bicubic", "sr_x4"),
            ("a.safetensors", "sr_x2"),
            ("b.safetensors", "sr_x2"),
            ("c.safetensors", "sr_x4"),
        ]
    ]
    # Every number is that of the evaluation function.
    task = build_task(compose("benchmark", ["task=sr_x2", "checkpoint=x"]).task)
    network = load_checkpoint(three / "a.safetensors").network
    own = evaluate(NetworkRestorer(network, task.protocol.padding), find_test_set("two", three, task))
    assert records[2].test_sets["two"].per_image == own.per_image
    rows = rows_of(three / "out" / "table.csv")
    assert [(row["task"], row["checkpoint"], row["source"]) for row in rows] == [
        *(("sr_x2", name, "measured") for name in ("bicubic", "a.safetensors", "b.safetensors")),
        *(("sr_x4", name, "measured") for name in ("bicubic", "c.safetensors")),
    ]
    assert [float(row["two psnr_y"]) for row in rows] == [records[i].test_sets["two"].metrics["psnr_y"] for i in (0, 2, 3, 1, 4)]
    difference = records[3].test_sets["one"].metrics["ssim_y"] - records[0].test_sets["one"].metrics["ssim_y"]
    assert float(rows[2]["one ssim_y - bicubic"]) == pytest.approx(difference, abs=1e-15)
    assert rows[0]["one ssim_y - bicubic"] == ""
    images = rows_of(three / "out" / "per_image.csv")
    assert len(images) == 10
    assert images[0]["psnr_y"] == repr(records[0].test_sets["one"].per_image["one"]["psnr_y"])
    assert (images[0]["width"], images[0]["height"], images[0]["tile"]) == ("40", "32", "")
    assert float(images[2]["seconds"]) > 0
    page = (three / "out" / "report.html").read_text()
    viewed = json.loads(re.search(r'class="viewer-data">(.*?)</script>', page)[1])["images"]
    networks = {name: [record.label for record in records[2:] if record.task == name] for name in ("sr_x2", "sr_x4")}
    assert {image["name"]: [version["name"] for version in image["versions"]] for image in viewed} == {
        f"{name}/{of_set}/{of_set}": ["bicubic", *networks[name], "truth"] for name in networks for of_set in ("one", "two")
    }
    assert page.count('<a href="#image=') == 4  # of the table of all images
    assert all(f'data-value="{float(image["psnr_y"])!r}"' in page for image in images)
    attempts.handled("benchmark")


def test_tables_mark_the_best_and_say_what_differs(three, measure):  # noqa: F811
    """The best PSNR is bold and the second best underlined in each format; the LaTeX is valid."""
    measure(*MANY, "reference=a.safetensors", "test_sets=[one]", "+metrics=[mae]")
    text = (three / "out" / "table.md").read_text()
    assert text.count("## sr_x2: psnr_y / ssim_y / mae") == 2  # the second is the table of differences
    assert text.count("## sr_x4: ") == 1, "the reference has no row there"
    line = next(line for line in text.splitlines() if line.startswith("| bicubic |"))
    psnr, ssim, mae = line.split("|")[2].split(" / ")
    assert all(cell.strip().startswith("**") for cell in (psnr, ssim, mae)), "an untrained network is worse, also where lower is better"
    assert text.splitlines()[4:7][1].count("<u>") + text.splitlines()[4:7][2].count("<u>") == 3
    tex = (three / "out" / "table.tex").read_text()
    assert check_latex(tex) == (1 + 3) + (1 + 2) + (1 + 2)
    assert tex.count(r"\underline{") == text.count("<u>")
    with pytest.raises(AssertionError, match="not escaped"):
        check_latex(tex.replace(r"a.safetensors", "a_b"))
    with pytest.raises(AssertionError):
        check_latex(tex.replace(" & ", " ", 1))


def test_published_rows_are_ranked_unless_their_rule_differs(measure, place):  # noqa: F811
    (place / "Set5").mkdir()
    write_image(place / "Set5" / "a.png", picture(32, 40))
    measure("checkpoint=bicubic", "task=sr_x4", "out=out", f"paths.data={place}", "reference=swinir_light", sets="Set5")
    text = (place / "out" / "table.md").read_text()
    assert re.search(r"\| hat \(DF2K\), HAT paper \| \*\*33\.04\*\* / \*\*0\.9056\*\* \|", text)
    assert "through secondary notes* | 33.12 / 0.9064 |" in text, "measured under a different rule"
    assert "difference to swinir_light (DIV2K), SwinIR paper" in text
    assert text.count("\n* measured under a different rule: ") == 2, "below the differences, too"
    assert re.search(r"\| swinir \(DIV2K\), SwinIR paper \| \+0\.28 / \+0\.0045 \|", text)
    assert check_latex((place / "out" / "table.tex").read_text()) == 17


class StoppedError(Exception):
    pass


def counting(monkeypatch, until=None):
    """Count the sets that are measured; raise an error before the given number."""
    calls = []
    original = shared_work.measure_set

    def counted(restorer, test_set, *args):
        if len(calls) == until:
            raise StoppedError
        calls.append(test_set.name)
        return original(restorer, test_set, *args)

    monkeypatch.setattr(shared_work, "measure_set", counted)
    return calls


def test_an_interrupted_benchmark_measures_only_what_is_missing(three, measure, monkeypatch):  # noqa: F811
    calls = counting(monkeypatch, until=5)
    with pytest.raises(StoppedError):
        measure(*MANY, sets="one,two")
    assert calls == ["one", "two", "one", "two", "one"]
    done = {record.checkpoint: without_costs(record.as_dict()) for record in read_records(three / "out" / "results.json")}
    monkeypatch.undo()
    monkeypatch.chdir(three)
    calls = counting(monkeypatch)
    measure(*MANY, sets="one,two")
    assert calls == ["two", "one", "two", "one", "two"]
    records = read_records(three / "out" / "results.json")
    assert all(len(record.test_sets) == 2 for record in records)
    assert without_costs(records[1].as_dict()) == done["bicubic"]
    (three / "moved").mkdir()
    (three / "a.safetensors").rename(three / "moved" / "x.safetensors")
    measure("checkpoint=moved/x.safetensors", "out=out", sets="one,two")
    assert len(calls) == 5, "the same weights in another place"
    write_image(three / "one" / "one.png", picture(32, 40, seed=9))
    measure("checkpoint=moved/x.safetensors", "out=out", sets="one,two")
    assert calls[5:] == ["one"], "another image"
    measure("checkpoint=moved/x.safetensors", "out=out", "remeasure=true", sets="one,two")
    assert calls[6:] == ["one", "two"]
    measure("checkpoint=moved/x.safetensors", "out=out", "ensemble=true", sets="one")
    assert calls[8:] == ["one"]


def test_restored_images_are_saved_and_restored_again_if_they_are_lost(three, measure, monkeypatch):  # noqa: F811
    measure("checkpoint=[a.safetensors,bicubic]", "out=out")
    assert not (three / "out" / "images").exists()
    calls = counting(monkeypatch)
    measure("checkpoint=[a.safetensors,bicubic]", "out=out", "save_images=true")
    files = sorted((three / "out" / "images").rglob("*.png"))
    assert files == [three / "out/images/sr_x2/one/one" / name for name in ("a.png", "bicubic.png")]
    task = build_task(compose("benchmark", ["task=sr_x2", "checkpoint=x"]).task)
    pair = find_test_set("one", three, task)[0]
    assert np.array_equal(read_image(files[1]), BicubicRestorer(2)(pair.lq))
    files[1].unlink()
    measure("checkpoint=[a.safetensors,bicubic]", "out=out", "save_images=true")
    assert len(calls) == 3
    assert files[1].exists()


def test_images_of_equal_names_are_not_mixed_up(three, measure, monkeypatch):  # noqa: F811
    """Two runs with folders of the same name are benchmarked one after the other in one folder."""
    for folder in ("x", "y"):
        save(three / folder / "run" / "checkpoints" / "best.safetensors", seed=ord(folder))
        measure(f"checkpoint={folder}/run", "out=out", "save_images=true")
    first, second = sorted((three / "out" / "images").rglob("*.png"), key=lambda file: len(file.name))
    assert first.name == "run.png"
    assert second.name.startswith("run-")
    before = first.read_bytes(), second.read_bytes()
    assert before[0] != before[1]
    calls = counting(monkeypatch)
    for again in ("remeasure=false", "remeasure=true"):
        for folder in ("x", "y"):
            measure(f"checkpoint={folder}/run", "out=out", "save_images=true", again)
    assert len(calls) == 2, "of remeasure=true"
    assert (first.read_bytes(), second.read_bytes()) == before


def test_without_a_task_each_network_has_its_own_and_baselines_have_all(three, measure, attempts):  # noqa: F811
    save(three / "d.safetensors", "task=denoise_color_25", "model.upsampler=''", seed=3)
    output = measure("checkpoint=[a.safetensors,c.safetensors,d.safetensors,bicubic,degraded]", "out=out")
    assert "skipped" not in output
    found = {(record.checkpoint, record.task) for record in read_records(three / "out" / "results.json")}
    assert found == {
        ("a.safetensors", "sr_x2"),
        ("c.safetensors", "sr_x4"),
        ("d.safetensors", "denoise_color_25"),
        ("bicubic", "sr_x2"),
        ("bicubic", "sr_x4"),
        ("degraded", "denoise_color_25"),
    }
    (folder,) = {file.parent.name for file in files(three, "out")}
    assert folder == "out"
    measure("checkpoint=[a.safetensors,c.safetensors]")
    assert [file.parent.name.rpartition("-")[0] for file in files(three)] == ["a+1-sr_x2+1"]
    attempts.handled("benchmark")


def test_rows_have_distinct_names(three, measure):  # noqa: F811
    for name in ("x", "y"):
        save(three / name / "checkpoints" / "best.safetensors", seed=ord(name))
    measure("checkpoint=[x,y,bicubic]", "out=out")
    labels = [record.label for record in read_records(three / "out" / "results.json")]
    assert labels == ["swinir_tiny, norm ln, step 10 (x)", "swinir_tiny, norm ln, step 10 (y)", "bicubic"]
    measure("checkpoint={ours:x,theirs_b:y}", "out=own", "save_images=true")
    assert [record.label for record in read_records(three / "own" / "results.json")] == ["ours", "theirs_b"]
    assert sorted(file.name for file in (three / "own" / "images").rglob("*.png")) == ["x.png", "y.png"]
    check_latex((three / "own" / "table.tex").read_text())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["checkpoint=[bicubic,nowhere.pth]"], "nowhere.pth: "),
        (["checkpoint=[bicubic,bicubic]"], "checkpoint: bicubic is listed twice, expected each checkpoint once"),
        (["checkpoint=[a.safetensors,copy.safetensors]"], "checkpoint: a.safetensors and copy.safetensors are the same weights, expected"),
        (["checkpoint=[]"], "checkpoint=[]: expected a path, bicubic or degraded, a list of them, or labels with paths"),
        (["checkpoint=bicubic", "tasks=[sr_x2,sr_x22]"], "tasks: unknown task sr_x22; known: "),
        (["checkpoint=bicubic", "tasks=[sr_x2]", "task=sr_x2"], "task= and tasks= are both given; give only one of them"),
        (
            ["checkpoint=a.safetensors", "tasks=[sr_x4]"],
            "checkpoint=a.safetensors was trained for sr_x2 (scale 2, 3 channels), and task=sr",
        ),
        (["checkpoint=[bicubic,a.safetensors]", "reference=swinir"], "reference=swinir: no row has this name; known: bicubic, a.safete"),
        (["checkpoint=[bicubic,a.safetensors]", "tile=100"], "checkpoint=a.safetensors: tile 100: expected a multiple of 8, as the netw"),
        (["checkpoint=[bicubic,a.safetensors]", "tile=32"], "checkpoint=a.safetensors: tile 32: expected more than the overlap of 32 pi"),
        (["checkpoint=bicubic", "ensemble=true"], "ensemble=True: bicubic has no network that it applies to; remove the key"),
        (["checkpoint=a.safetensors", "tile=64", "memory=1GB"], "tile=64 and memory=1GB both bound the memory; give only one of them"),
        (["checkpoint=a.safetensors", "memory=lots"], "checkpoint=a.safetensors: memory=lots: expected an amount such as 500MB, 2GB or"),
        (["checkpoint=bicubic", "+metrics=[psnrr]"], "metrics=psnrr: unknown metrics; known: "),
        (["checkpoint=bicubic", "tile=big"], "tile=big: expected a number of pixels, auto or off"),
        (["checkpoint=bicubic", "out=one/x"], "out=one/x: is inside one, the folder of one; choose another folder"),
        (["checkpoint=bicubic", "padding=zero"], "padding=zero: expected "),
        (["checkpoint=bicubic", "tasks=[sr_x2,sr_x4]", "test_sets=[one,Set99]"], "unknown test set Set99; known: "),
    ],
    ids=str,
)
def test_mistakes_are_reported_before_anything_is_measured(three, measure, monkeypatch, attempts, words, line):  # noqa: F811
    (three / "copy.safetensors").write_bytes((three / "a.safetensors").read_bytes())
    monkeypatch.setattr(shared_work, "measure_set", None)
    sets = words.pop().removeprefix("test_sets=[").removesuffix("]") if words[-1].startswith("test_sets") else "one"
    out = [] if any(word.startswith("out=") for word in words) else ["out=out"]
    assert measure(*words, *out, sets=sets).startswith(f"error: {line}")
    assert not (three / "out").exists()
    attempts.refused("benchmark")


def test_departures_are_in_the_table_and_in_the_record(three, measure, attempts):  # noqa: F811
    write_image(three / "one" / "one.png", picture(96, 112))
    numbers = {}
    for words in ([], ["ensemble=true"], ["tile=32", "overlap=8"], ["memory=100MB"], ["padding=flip_always"], ["padding=reflect_min"]):
        out = "-".join(["out", *(word.partition("=")[2] for word in words)])
        output = measure("checkpoint=[a.safetensors,bicubic]", f"out={out}", *words)
        network, baseline = read_records(three / out / "results.json")
        numbers[" ".join(words)] = network.test_sets["one"].metrics["psnr_y"]
        if words and not words[0].startswith(("padding", "memory")):
            assert network.departures == {"ensemble": True} if words == ["ensemble=true"] else {"tile": 32, "overlap": 8}
            assert baseline.departures == {}
            phrase = "self-ensemble x8" if words == ["ensemble=true"] else "tile 32, overlap 8"
            assert f"sr_x2, {phrase}: psnr_y / ssim_y" in output
            assert f"{phrase}: does not apply to bicubic." in " ".join(output.split()).replace("; ", ", ")
        elif words:
            assert network.departures == {}
    assert numbers["memory=100MB"] == pytest.approx(numbers[""], abs=1e-3), "bands are exact"
    assert numbers["padding=flip_always"] == numbers[""], "the rule of SwinIR"
    assert len({round(number, 4) for number in numbers.values()}) == 4
    attempts.handled("benchmark")


def test_an_image_that_does_not_fit_into_memory_is_restored_in_tiles_and_says_so(three, measure, monkeypatch):  # noqa: F811
    write_image(three / "one" / "one.png", picture(32, 400))
    write_image(three / "one" / "small.png", picture(32, 64))
    original = NetworkRestorer.pixels

    def limited(self, lq):
        if lq.shape[1] > 150:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, lq)

    monkeypatch.setattr(NetworkRestorer, "pixels", limited)
    output = " ".join(measure("checkpoint=[a.safetensors,bicubic]", "out=out").split())
    assert "one: memory did not suffice for whole images; restored one in tiles of 104 pixels." in output
    tiles = {row["image"]: row["tile"] for row in rows_of(three / "out" / "per_image.csv") if row["checkpoint"] == "a.safetensors"}
    assert tiles == {"one": "104", "small": ""}
    with pytest.raises(RuntimeError, match="allocate memory"):
        measure("checkpoint=a.safetensors", "out=off", "tile=off")


def test_costs_are_those_of_the_image(three):
    class Hungry(torch.nn.Module):
        scale = 2

        def forward(self, x):
            torch.ones(64, 2**20)  # 256 MiB
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    task = build_task(compose("benchmark", ["task=sr_x2", "checkpoint=x"]).task)
    found = measure_set(TiledRestorer(NetworkRestorer(Hungry(), "network"), "auto"), find_test_set("one", three, task))
    cost = found.costs["one"]
    if cost.peak_memory is not None:  # a system that tells
        assert 2**28 * 0.9 < cost.peak_memory < 2**28 * 1.5
    assert (cost.height, cost.width, cost.tile) == (32, 40, None)


def test_records_come_back_as_they_were_written(tmp_path):
    """One schema for runs and benchmarks; the typed reader returns what was written, and also reads files without a version."""
    sets = {
        "a": SetResult("a", "files", ["remark"], {"x": {"edge": 1.5}, "y": {"edge": np.inf}}, costs={"x": ImageCost(4, 5, 0.5, 7, 64)}),
        "b": SetResult("b", "files", [], {"x": {"edge": 1.5}}, {"largest": {"l": 2.0}}, {"y": 12}, {}, "f00"),
    }
    traits = {"edge": MetricTraits(False, 2, "gray levels")}
    record = Record("p", "label", "sr_x2", "sr_x2, border 0", {"metrics": ["edge"]}, {"tile": 64}, traits, sets, {"sha256": "1"})
    write_records(tmp_path / "one.json", [record])
    write_records(tmp_path / "two.json", [record, record])
    assert read_records(tmp_path / "one.json") == [record]
    assert read_records(tmp_path / "two.json") == [record, record]
    assert strictly(tmp_path / "one.json")["version"] == 2
    assert strictly(tmp_path / "one.json")["test_sets"]["b"]["metrics"] == {}
    old = tmp_path / "old.json"
    part = '{"metrics": {"psnr_y": 1}, "per_image": {"i": {"psnr_y": 1}}}'
    old.write_text(f'{{"task": "t", "protocol": {{"metrics": ["psnr_y"]}}, "test_sets": {{"s": {part}}}}}')
    (found,) = read_records(old)
    assert (found.task_label, found.test_sets["s"].metrics, found.traits["psnr_y"].unit) == ("t", {"psnr_y": 1.0}, "dB")
    old.write_text('{"version": 3}')
    with pytest.raises(UserError, match=r"old\.json: cannot be read \(version 3, written by a later version of irformer"):
        read_records(old)


@pytest.mark.slow
def test_several_devices_give_the_numbers_of_one(three, measure, monkeypatch):  # noqa: F811
    for i in range(4):
        write_image(three / "one" / f"{i}.png", picture(32, 32 + 8 * i, seed=i))
    words = ["checkpoint=[a.safetensors,bicubic]", "precision=bf16", "save_images=true"]
    measure(*words, "out=single")
    measure(*words, "out=shared", "devices=2")
    single, shared = (
        [without_costs(record.as_dict()) for record in read_records(three / out / "results.json")] for out in ("single", "shared")
    )
    assert single == shared
    images = [sorted((three / out / "images").rglob("*.png")) for out in ("single", "shared")]
    assert len(images[0]) == 10
    assert [file.read_bytes() for file in images[0]] == [file.read_bytes() for file in images[1]]

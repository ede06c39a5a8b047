"""What a comparison of arms found, as tables for the terminal and in files."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irformer.core.files import write_atomically
from irformer.metrics import MetricTraits
from irformer.reporting.tables import Cell, Column, Number, Numbers, Part, ResultTable, latex
from irformer.runs.benchmark_arms import UNSEEDED
from irformer.runs.differences import Difference
from irformer.runs.intervals import RESAMPLES


@dataclass(frozen=True)
class ArmMean:
    """An arm on one test set: the mean over the images for each seed, and their mean and sample standard deviation."""

    label: str
    seeds: dict[int, float]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class ImageDifference:
    """An image on which two arms differ: the means of both over their seeds."""

    image: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        """Arm a minus arm b."""
        return self.a - self.b


@dataclass(frozen=True)
class SetComparison:
    """All arms on one test set.

    Args:
        name: name of the test set.
        images: number of compared images.
        arms: mean and deviation of each arm.
        differences: the differences of pairs of arms.
        notes: the excluded images and the reasons.
        most_different: for each difference, the images that differ most, in descending order.
    """

    name: str
    images: int
    arms: list[ArmMean]
    differences: list[Difference]
    notes: list[str]
    most_different: list[list[ImageDifference]]


@dataclass(frozen=True)
class Comparison:
    """A comparison of arms on one metric."""

    metric: str
    traits: MetricTraits
    sets: list[SetComparison]
    notes: list[str]

    def tables(self) -> list[ResultTable]:
        """Return a table of the arms' means for each test set, and one of their differences if there are several arms."""
        tables = []
        for part in self.sets:
            title = f"{part.name}, {part.images} image{'s' * (part.images != 1)}: {self.metric}"
            rows: list[list[Cell]] = [
                [
                    arm.label,
                    self._number(arm.mean),
                    self._number(arm.deviation),
                    Numbers(tuple(self._number(value) for value in arm.seeds.values()), between=", "),
                ]
                for arm in part.arms
            ]
            seeds = list(dict.fromkeys(", ".join(map(str, arm.seeds)) for arm in part.arms))
            single = f"seeds {seeds[0]}" if len(seeds) == 1 else "each seed"
            header: list[str | Column] = ["arm", Column("mean", (Part("", self.traits.higher_is_better),)), "deviation", single]
            shown = 2 if seeds == [str(UNSEEDED)] else len(header)
            tables.append(ResultTable(title, header[:shown], [row[:shown] for row in rows], part.notes))
            if part.differences:
                tables.append(self._difference_table(part))
        return tables

    def _difference_table(self, part: SetComparison) -> ResultTable:
        corrected = any(difference.adjusted_p_value is not None for difference in part.differences)
        rows: list[list[Cell]] = []
        for difference in part.differences:
            p_value = difference.adjusted_p_value if corrected else difference.p_value
            rows.append(
                [
                    f"{difference.a} - {difference.b}",
                    self._number(difference.mean, sign=True),
                    self._interval(difference.interval),
                    None if p_value is None else Number(p_value, 4),
                    self._number(difference.seed_deviation),
                    difference.verdict,
                ]
            )
        interval = Column("95 % interval", (Part("low"), Part("high")))
        header: list[str | Column] = ["difference", self.metric, interval, "p", "seed deviation", "verdict"]
        notes = [f"p: after Holm's correction for {part.differences[0].tested} differences."] if corrected else []
        return ResultTable(f"{part.name}: paired differences", header, rows, notes)

    def image_tables(self) -> list[ResultTable]:
        """Return a table for each difference of the images that differ most."""
        tables = []
        for part in self.sets:
            for difference, images in zip(part.differences, part.most_different, strict=True):
                rows: list[list[Cell]] = [
                    [found.image, self._number(found.a), self._number(found.b), self._number(found.difference, sign=True)]
                    for found in images
                ]
                title = f"{part.name}: images with the largest differences, {difference.a} - {difference.b}"
                tables.append(ResultTable(title, ["image", difference.a, difference.b, f"difference in {self.metric}"], rows))
        return tables

    def write(self, folder: Path) -> list[Path]:
        """Write compare.md, .tex, .csv and .json to a folder, and images.csv, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = [*self.tables(), *self.image_tables()]
        text = "\n".join([*(f"## {table.title}\n\n{table.markdown()}" for table in tables), *self.notes, ""])
        sets = {
            part.name: {
                "images": part.images,
                "arms": {
                    arm.label: {
                        "mean": arm.mean,
                        "deviation": arm.deviation,
                        "seeds": {seed: value for seed, value in arm.seeds.items() if seed != UNSEEDED},
                    }
                    for arm in part.arms
                },
                "differences": [
                    {**difference.as_dict(), "most_different": [{**asdict(found), "difference": found.difference} for found in images]}
                    for difference, images in zip(part.differences, part.most_different, strict=True)
                ],
                "notes": part.notes,
            }
            for part in self.sets
        }
        record = {
            "metric": self.metric,
            "higher_is_better": self.traits.higher_is_better,
            "resamples": RESAMPLES,
            "test_sets": sets,
            "notes": self.notes,
        }
        files = {
            folder / "compare.md": text,
            folder / "compare.tex": "\n".join(latex(table) for table in tables),
            folder / "compare.csv": self._csv(),
            folder / "images.csv": self._image_csv(),
            folder / "compare.json": json.dumps(record, indent=1) + "\n",
        }
        for file, content in files.items():
            write_atomically(file, lambda temporary, content=content: temporary.write_text(content, encoding="utf-8"))  # type: ignore[misc]
        return list(files)

    def _csv(self) -> str:
        """Return a row for each difference at full precision."""
        names = [
            "test_set",
            "metric",
            "images",
            "a",
            "b",
            "difference",
            "low",
            "high",
            "p_value",
            "adjusted_p_value",
            "seed_deviation",
            "verdict",
        ]
        rows = []
        for part in self.sets:
            for found in part.differences:
                low, high = found.interval or (None, None)
                values = [found.mean, low, high, found.p_value, found.adjusted_p_value, found.seed_deviation, found.verdict]
                rows.append([part.name, self.metric, part.images, found.a, found.b, *values])
        return _csv_text(names, rows)

    def _image_csv(self) -> str:
        """Return a row for each image that differs most at full precision."""
        rows = []
        for part in self.sets:
            for difference, images in zip(part.differences, part.most_different, strict=True):
                for found in images:
                    rows.append([part.name, self.metric, difference.a, difference.b, found.image, found.a, found.b, found.difference])
        return _csv_text(["test_set", "metric", "a", "b", "image", "value_a", "value_b", "difference"], rows)

    def _number(self, value: float | None, sign: bool = False) -> Number | None:
        """Return a number with one more decimal than the metric: PSNR in dB with three, SSIM with five."""
        return None if value is None else Number(value, self.traits.digits + 1, sign)

    def _interval(self, interval: tuple[float, float] | None) -> Numbers | None:
        if interval is None:
            return None
        return Numbers(tuple(self._number(end, sign=True) for end in interval), between=", ", brackets=("[", "]"))


def _csv_text(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([names, *rows])
    return text.getvalue()

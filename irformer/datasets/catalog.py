"""The public data sets by the names used in papers, and their common folder layouts."""

from dataclasses import dataclass
from pathlib import Path

from skimage import data as skimage_data

from irformer.datasets.origins import ORIGINS
from irformer.errors import UserError


@dataclass(frozen=True)
class TrainingSet:
    """The folder layouts of a training set; origins.py has its source.

    Args:
        hq: folders of the clean images, relative to the data folder; the first that exists is used.
        lq: folders of the degraded images. With `{scale}` for the factor: official LR; if missing, identical LR is made on the fly.
            Without `{scale}`: the degraded images of a paired set.
    """

    hq: tuple[str, ...]
    lq: tuple[str, ...] = ()


TRAINING_SETS = {
    "DIV2K": TrainingSet(
        hq=("DIV2K/DIV2K_train_HR", "DIV2K_train_HR", "DIV2K/HR"),
        lq=("DIV2K/DIV2K_train_LR_bicubic/X{scale}", "DIV2K_train_LR_bicubic/X{scale}", "DIV2K/LR_bicubic/X{scale}"),
    ),
    "Flickr2K": TrainingSet(
        hq=("Flickr2K/Flickr2K_HR", "Flickr2K/HR", "Flickr2K"),
        lq=("Flickr2K/Flickr2K_LR_bicubic/X{scale}", "Flickr2K/LR_bicubic/X{scale}"),
    ),
    "BSDS400": TrainingSet(hq=("BSDS400/HR", "BSDS400", "BSD400")),
    "WED": TrainingSet(hq=("WED/HR", "WED/pristine_images", "WED", "WaterlooED")),
    "Rain13K": TrainingSet(
        hq=("Rain13K/target", "train/Rain13K/target", "Deraining/Datasets/train/Rain13K/target"),
        lq=("Rain13K/input", "train/Rain13K/input", "Deraining/Datasets/train/Rain13K/input"),
    ),
}

# Test sets by the names used in papers, each with its folders relative to the data folder, which also have several names.
TEST_SETS = {
    "Set5": ("Set5",),
    "Set14": ("Set14",),
    "B100": ("B100", "BSD100", "BSDS100"),
    "Urban100": ("Urban100",),
    "Manga109": ("Manga109",),
    "DIV2K_val": ("DIV2K_val", "DIV2K/DIV2K_valid_HR", "DIV2K_valid_HR"),
    "CBSD68": ("CBSD68", "BSD68"),
    "Kodak24": ("Kodak24", "Kodak", "kodak24", "kodak"),
    "McMaster": ("McMaster", "McM"),
    "Set12": ("Set12", "set12"),
    "BSD68": ("BSD68", "bsd68", "CBSD68"),
    "Classic5": ("Classic5", "classic5"),
    "LIVE1": ("LIVE1", "LIVE1_color", "live1"),
    "Rain100L": ("Rain100L", "test/Rain100L"),
    "Rain100H": ("Rain100H", "test/Rain100H"),
    "Test100": ("Test100", "test/Test100"),
    "Test1200": ("Test1200", "test/Test1200"),
    "Test2800": ("Test2800", "test/Test2800"),
    "Rain100L_sample": ("Rain100L_sample",),
}
# The same 68 images in gray and in color: papers call both BSD68, and the task determines which is meant.
GRAY_AND_COLOUR = {"BSD68": "CBSD68"}
# Kodak24 exists in two variants, whose PSNR differs by 0.11 to 0.14 dB.
KODAK24_VARIANTS = {frozenset({(500, 500)}): "500x500", frozenset({(512, 768), (768, 512)}): "768x512"}

# Photographs bundled with scikit-image: CC0 or public domain, a few megapixels in total, enough for a first run.
SAMPLE_TRAIN = ("coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "motorcycle_left.png", "motorcycle_right.png")
SAMPLE_VAL = ("astronaut.png", "chelsea.png")
SAMPLE = "sample"


def sample_photos(names: tuple[str, ...]) -> list[Path]:
    """Return the paths of photographs installed with scikit-image."""
    folder = Path(skimage_data.__file__).parent
    return [folder / name for name in names]


def find_folder(root: Path, candidates: tuple[str, ...]) -> Path | None:
    """Return the first of the folders that exists below root or root/benchmark."""
    for candidate in candidates:
        for folder in (root / candidate, root / "benchmark" / candidate):
            if folder.is_dir():
                return folder
    return None


def missing_set(name: str, root: Path, candidates: tuple[str, ...]) -> UserError:
    """Return the error for a known set that is not on disk."""
    return UserError(
        f"{name} was not found below {root} (looked for {', '.join(candidates)}): {how_to_get(name)}, "
        "or choose another folder with paths.data=FOLDER or the variable IRFORMER_DATA"
    )


def how_to_get(name: str) -> str:
    """Explain how to get a set: by the command that downloads it, or by hand from its page."""
    origin = ORIGINS.get(name)
    if origin is None:
        return "copy it there"
    return f"run python scripts/prepare_data.py download {name}" if origin.archives else f"download it from {origin.page}"

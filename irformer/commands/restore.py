"""Restore an image or a folder of images: python scripts/restore.py INPUT OUTPUT --checkpoint PATH."""

import argparse
from pathlib import Path

from tqdm import tqdm

from irformer.checkpoints import load_checkpoint
from irformer.commands.common import device, telling_mistakes
from irformer.data.images import list_images, read_gray, read_image, write_image
from irformer.inference import NetworkRestorer


def restore() -> None:
    """Restore an image or a folder of images: python scripts/restore.py INPUT OUTPUT --checkpoint PATH."""
    parser = argparse.ArgumentParser(description="Restore an image, or all images of a folder.")
    parser.add_argument("input", type=Path, help="image file or folder")
    parser.add_argument("output", type=Path, help="image file, or folder for a folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder or a file of weights")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    arguments = parser.parse_args()
    with telling_mistakes():
        _restore(arguments.input, arguments.output, arguments.checkpoint, arguments.device)


def _restore(source: Path, target: Path, checkpoint: Path, device_name: str) -> None:
    loaded = load_checkpoint(checkpoint)
    where = device(device_name)
    restorer = NetworkRestorer(loaded.network.to(where), "reflect_min", where)
    if source.is_dir():
        files = list_images(source, "name an image or a folder of images")
        jobs = [(file, target / f"{file.stem}.png") for file in files]
        target.mkdir(parents=True, exist_ok=True)
    else:
        jobs = [(source, target / f"{source.stem}.png" if target.is_dir() else target)]
    read = read_gray if loaded.network.in_channels == 1 else read_image
    for file, out in tqdm(jobs, unit="image", disable=None):
        write_image(out, restorer(read(file)))
    print(f"{len(jobs)} images restored x{loaded.network.scale}: {target}")

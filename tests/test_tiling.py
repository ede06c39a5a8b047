"""Tiles and the self-ensemble: SwinIR's rule to the bit, the whole image where the receptive field allows it, and less memory."""

import numpy as np
import pytest
import torch
from conftest import picture
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer, NonFiniteOutputError, pad_flip_always, to_image, to_tensor
from irformer.evaluation.tiling import TiledRestorer, is_out_of_memory, tile_starts
from irformer.models.blocks import pad_to_multiple


class Convolutions(nn.Module):
    """Two convolutions and an upsampler: a receptive field of 5x5 pixels, and no memory of where a tile begins but its border."""

    in_channels = 3
    size_multiple = 8

    def __init__(self, scale: int = 2, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.in_channels = channels
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(4, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[2:]))
        h, w = x.shape[2:]
        x = pad_to_multiple(x, self.size_multiple)
        return torch.sigmoid(self.last(self.first(x)))[:, :, : h * self.scale, : w * self.scale]


def swinir_rule(network: nn.Module, x: Tensor, tile: int, overlap: int) -> Tensor:
    """Sums and counts over the whole image, as SwinIR's test script keeps them."""
    scale = network.scale
    height, width = x.shape[2:]
    sums = torch.zeros(1, x.shape[1], height * scale, width * scale)
    counts = torch.zeros_like(sums)
    step = tile - overlap
    for top in [*range(0, height - tile, step), height - tile]:
        for left in [*range(0, width - tile, step), width - tile]:
            with torch.no_grad():
                out = network(x[..., top : top + tile, left : left + tile])
            area = (..., slice(top * scale, (top + tile) * scale), slice(left * scale, (left + tile) * scale))
            sums[area] += out
            counts[area] += 1
    return sums / counts


@pytest.mark.parametrize("padding", ["reflect_min", "flip_always"])
@pytest.mark.parametrize(("tile", "overlap"), [(24, 8), (32, 20), (16, 0)])
def test_tiles_follow_swinir_s_rule_to_the_bit(padding, tile, overlap):
    network = Convolutions()
    image = picture(53, 90)
    found, used = TiledRestorer(NetworkRestorer(network, padding), tile, overlap).restore(image)
    assert used == tile
    x = to_tensor(image)
    x = pad_flip_always(x, 8) if padding == "flip_always" else pad_to_multiple(x, 8)
    assert np.array_equal(found, to_image(swinir_rule(network, x, tile, overlap))[: 2 * 53, : 2 * 90])


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiles_equal_the_whole_image_apart_from_the_seams(scale, dtype):
    """A tile's border reaches two pixels inwards; averaging halves what it does there, and pixels in one tile only are exact."""
    network = Convolutions(scale)
    image = picture(70, 101)
    image = {np.uint8: image, np.uint16: image.astype(np.uint16) * 257, np.float32: image.astype(np.float32) / 255}[dtype]
    whole = NetworkRestorer(network, "reflect_min")(image)
    tiled = TiledRestorer(NetworkRestorer(network, "reflect_min"), 40, 16)(image)
    assert tiled.dtype == whole.dtype
    assert tiled.shape == whole.shape
    differs = (tiled != whole).any(2)
    starts = {axis: tile_starts(size + -size % 8, 40, 16) for axis, size in ((0, 70), (1, 101))}
    near = np.zeros_like(differs)
    for axis, axis_starts in starts.items():
        for seam in [*axis_starts[1:], *(start + 40 for start in axis_starts[:-1])]:
            lines = slice(max(seam - 2, 0) * scale, (seam + 2) * scale)
            near[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
    # Elsewhere, sums of equal floats: the mean of two or four is exact, that of three or more may round the other way.
    assert np.abs(tiled.astype(int) - whole.astype(int))[~near].max() <= 1
    assert differs[~near].mean() < 0.01
    assert near.mean() < 0.5


def test_an_image_that_fits_one_tile_is_restored_whole():
    network = Convolutions()
    found, tile = TiledRestorer(NetworkRestorer(network, "flip_always"), 64).restore(picture(40, 64))
    assert tile is None
    assert network.seen == [(48, 72)]
    assert np.array_equal(found, NetworkRestorer(network, "flip_always")(picture(40, 64)))


def test_a_narrow_image_is_cut_along_its_long_side():
    network = Convolutions()
    found, tile = TiledRestorer(NetworkRestorer(network, "reflect_min"), 64).restore(picture(5, 200))
    assert tile == 64
    assert found.shape == (10, 400, 3)
    assert set(network.seen) == {(8, 64)}


class SmallMemory(Convolutions):
    """Fails as a device does on more than a number of pixels."""

    def __init__(self, pixels: int, error: Exception) -> None:
        super().__init__()
        self.pixels = pixels
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if x.shape[2] * x.shape[3] > self.pixels:
            raise self.error
        return out


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ + str(i) for i, error in enumerate(ERRORS)])
def test_auto_halves_the_tile_until_it_fits(error):
    network = SmallMemory(70 * 70, error)
    restorer = TiledRestorer(NetworkRestorer(network, "reflect_min"), "auto", 16)
    image = picture(200, 270)
    found, tile = restorer.restore(image)
    assert tile == 64
    assert network.seen[:4] == [(200, 270), (136, 136), (72, 72), (64, 64)]
    assert np.array_equal(found, TiledRestorer(NetworkRestorer(Convolutions(), "reflect_min"), tile, 16)(image))
    # What did not fit is not tried again; what is smaller is.
    network.seen.clear()
    restorer.restore(image)
    assert set(network.seen) == {(tile, tile)}
    network.seen.clear()
    assert restorer.restore(picture(60, 60))[1] is None
    assert network.seen == [(60, 60)]


def test_auto_gives_up_at_the_smallest_tile_and_on_other_errors():
    network = SmallMemory(0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        TiledRestorer(NetworkRestorer(network, "reflect_min"), "auto", 16).restore(picture(200, 200))
    assert network.seen == [(200, 200), (104, 104), (64, 64)]
    network = SmallMemory(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        TiledRestorer(NetworkRestorer(network, "reflect_min"), "auto", 16).restore(picture(200, 200))
    assert network.seen == [(200, 200)]
    assert not is_out_of_memory(ValueError("out of memory"))


def test_tiles_that_are_not_finite_are_an_error():
    network = Convolutions()
    network.last[0].bias.data[0] = torch.nan
    with pytest.raises(NonFiniteOutputError, match=r"in the rows from 0 to 48, .* values of the restored image are NaN or infinite"):
        TiledRestorer(NetworkRestorer(network, "reflect_min"), 32, 8)(picture(50, 50))


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (100, 32, "tile 100: expected a multiple of 8, as the network requires; use 96 or 104"),
        (36, 32, "tile 36: expected a multiple of 8, as the network requires; use 40"),
        (32, 32, "tile 32: expected more than the overlap of 32 pixels; use a larger tile or a smaller overlap"),
        (0, 0, "tile 0: expected more than the overlap of 0 pixels; use a larger tile or a smaller overlap"),
        ("auto", -1, "overlap -1: expected 0 or more pixels"),
    ],
)
def test_tiles_that_cannot_be(tile, overlap, message):
    with pytest.raises(UserError) as raised:
        TiledRestorer(NetworkRestorer(Convolutions(), "reflect_min"), tile, overlap)
    assert str(raised.value) == message


def test_the_ensemble_is_the_mean_over_flips_and_rotations():
    """Against NumPy's rotations of the image: the same eight orientations, found another way."""
    network = Convolutions()
    image = picture(24, 37)
    found = SelfEnsemble(network)(to_tensor(image))
    total = np.zeros((48, 74, 3))
    with torch.no_grad():
        for turns in range(4):
            for mirrored in (False, True):
                x = np.rot90(image[:, ::-1] if mirrored else image, turns)
                out = np.rot90(network(to_tensor(x))[0].permute(1, 2, 0).numpy(), -turns)
                total += out[:, ::-1] if mirrored else out
    assert np.abs(found[0].permute(1, 2, 0).detach().numpy() - total / 8).max() < 1e-6


def test_an_ensemble_treats_all_orientations_alike():
    """Turning the image turns the result; the network alone does not do so."""
    network = Convolutions(scale=1)
    x = to_tensor(picture(16, 24))
    with torch.no_grad():
        for turn in (lambda t: t.flip(2), lambda t: t.flip(3), lambda t: t.transpose(2, 3), lambda t: t.rot90(1, (2, 3))):
            assert not torch.allclose(network(turn(x)), turn(network(x)), atol=1e-4)
            assert torch.allclose(SelfEnsemble(network)(turn(x)), turn(SelfEnsemble(network)(x)), atol=1e-6)


def test_an_ensemble_is_a_network_and_averages_before_rounding():
    network = SelfEnsemble(Convolutions())
    assert (network.scale, network.in_channels, network.size_multiple, network.test_padding) == (2, 3, 8, "reflect_min")
    image = picture(50, 70)
    with torch.no_grad():
        expected = to_image(network(to_tensor(image)))
    assert np.array_equal(NetworkRestorer(network, "reflect_min")(image), expected)
    found, tile = TiledRestorer(NetworkRestorer(network, "reflect_min"), 40, 16).restore(image)
    assert tile == 40
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 1

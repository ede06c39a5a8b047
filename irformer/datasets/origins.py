"""Sources of the public data sets: archives with checksums and contents, terms of use, and pages for downloads by hand."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The images of an archive that form one folder of a set.

    Args:
        of: name of the set.
        members: shell patterns of paths in the archive (`*` also matches `/`); the folder has no subfolders.
        folder: target folder, relative to the data folder.
        images: number of images.
        required: whether the archive must contain these images.
    """

    of: str
    members: tuple[str, ...]
    folder: str
    images: int
    required: bool = True


@dataclass(frozen=True)
class Archive:
    """A file on a server.

    Args:
        url: URL of the file.
        file: file name on disk.
        parts: images to unpack. The clean images of a set precede its degraded ones.
        md5: published checksum; empty if there is none.
        confirmed: whether two sources agree on the checksum. A checksum from a single source may be out of date.
        size: size in bytes, approximate unless `exact`.
        exact: whether the file must have exactly this size.
        scale: the factor, if the archive contains only official LR images.
    """

    url: str
    file: str
    parts: tuple[Part, ...]
    md5: str = ""
    confirmed: bool = False
    size: int | None = None
    exact: bool = False
    scale: int | None = None


@dataclass(frozen=True)
class Origin:
    """The source of a public set.

    Args:
        use: purpose, in a few words.
        images: number of images.
        page: web page for downloads by hand.
        terms: terms of use, in a few words; only the publishers' own pages are binding.
        archives: files that `prepare_data.py download` fetches; empty if the set must be downloaded by hand.
        mirrors: other archives of the clean images, tried in this order if the first cannot be reached.
        names: format of the images' names without suffix and the first number, ("{:04d}", 1), if they are numbered.
        pairs: whether each clean image has a degraded image of the same size.
    """

    use: str
    images: int
    page: str
    terms: str
    archives: tuple[Archive, ...] = ()
    mirrors: tuple[Archive, ...] = ()
    names: tuple[str, int] | None = None
    pairs: bool = False


_ETH = "http://data.vision.ee.ethz.ch/cvl/DIV2K"


def _div2k(split: str, scale: int, of: str, images: int, md5: str) -> Archive:
    """Return the archive of official bicubic LR images of DIV2K; both splits use the same folder."""
    folder = f"DIV2K_{split}_LR_bicubic"
    part = Part(of, (f"*{folder}/X{scale}/*.png",), f"DIV2K/{folder}/X{scale}", images)
    file = f"{folder}_X{scale}.zip"
    return Archive(f"{_ETH}/{file}", file, (part,), md5, confirmed=True, scale=scale)


_DIV2K_TRAIN = Archive(
    f"{_ETH}/DIV2K_train_HR.zip",
    "DIV2K_train_HR.zip",
    (Part("DIV2K", ("*DIV2K_train_HR/*.png",), "DIV2K/DIV2K_train_HR", 800),),
    md5="bdc2d9338d4e574fe81bf7d158758658",
    confirmed=True,
    size=3_530_603_713,
    exact=True,
)
_DIV2K_VALID = Archive(
    f"{_ETH}/DIV2K_valid_HR.zip",
    "DIV2K_valid_HR.zip",
    (Part("DIV2K_val", ("*DIV2K_valid_HR/*.png",), "DIV2K/DIV2K_valid_HR", 100),),
    md5="9fcdda83005c5e5997799b69f955ff88",
    confirmed=True,
)
_FLICKR2K = Archive(
    "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar",
    "Flickr2K.tar",
    (
        Part("Flickr2K", ("*Flickr2K_HR/*.png",), "Flickr2K/Flickr2K_HR", 2650),
        *(Part("Flickr2K", (f"*Flickr2K_LR_bicubic/X{x}/*.png",), f"Flickr2K/Flickr2K_LR_bicubic/X{x}", 2650, False) for x in (2, 3, 4)),
    ),
    md5="5d3f39443d5e9489bff8963f8f26cb03",
    size=20_000_000_000,
)
_FLICKR2K_HR = Archive(
    "https://huggingface.co/datasets/yangtao9009/Flickr2K/resolve/main/Flickr2K.zip",
    "Flickr2K.zip",
    (Part("Flickr2K", ("*/" + 6 * "[0-9]" + ".png", 6 * "[0-9]" + ".png"), "Flickr2K/Flickr2K_HR", 2650),),
    size=11_600_000_000,
)


def _benchmark(of: str, images: int) -> tuple[Part, ...]:
    """Return the parts of a set in benchmark.tar: clean images and official LR."""
    lr = (Part(of, (f"*{of}/LR_bicubic/X{x}/*.png",), f"{of}/LR_bicubic/X{x}", images, False) for x in (2, 3, 4))
    return Part(of, (f"*{of}/HR/*.png",), f"{of}/HR", images), *lr


_BENCHMARK = Archive(
    "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    "benchmark.tar",
    (*_benchmark("Set5", 5), *_benchmark("Set14", 14), *_benchmark("B100", 100), *_benchmark("Urban100", 100)),
    md5="4ace41d33c2384b97e6b320cd0afd6ba",
    size=250_000_000,
)
_URBAN100_HR = Archive(
    "https://huggingface.co/datasets/eugenesiow/Urban100/resolve/main/data/Urban100_HR.tar.gz",
    "Urban100_HR.tar.gz",
    (Part("Urban100", ("*.png",), "Urban100/HR", 100),),
)
# The 68 of the 100 validation images of BSDS500 that are used to evaluate color denoising (Roth and Black, CVPR 2005).
_CBSD68 = (
    "101085 101087 102061 103070 105025 106024 108005 108070 108082 109053 119082 12084 123074 126007 130026 134035 14037 "
    "143090 145086 147091 148026 148089 157055 159008 160068 16077 163085 167062 167083 170057 175032 175043 182053 189080 "
    "19021 196073 197017 208001 210088 21077 216081 219090 220075 223061 227092 229036 236037 24077 241004 241048 253027 "
    "253055 260058 271035 285079 291000 295087 296007 296059 299086 300091 302008 304034 304074 306005 3096 33039 351093"
)
_BSDS = "*BSDS500/data/images"
# Its validation images are B100 and include CBSD68, pixel for pixel: they are test images and must not be trained on.
_BSDS500 = Archive(
    "https://github.com/BIDS/BSDS500/archive/refs/heads/master.zip",
    "BSDS500-master.zip",
    (
        Part("BSDS400", (f"{_BSDS}/train/*.jpg", f"{_BSDS}/test/*.jpg"), "BSDS400/HR", 400),
        Part("B100", (f"{_BSDS}/val/*.jpg",), "B100/HR", 100),
        Part("CBSD68", tuple(f"{_BSDS}/val/{name}.jpg" for name in _CBSD68.split()), "CBSD68/HR", 68),
    ),
    md5="7bfe17302a219367694200a61ce8256c",
)

_FFDNET = "https://github.com/cszn/FFDNet/tree/master/testsets"
_FBCNN = "https://github.com/jiaxi-jiang/FBCNN/tree/main/testsets"
_RESTORMER = "https://github.com/swz30/Restormer/tree/main/Deraining"
_RESEARCH = "research"

ORIGINS = {
    "DIV2K": Origin(
        "training SR, noise, JPEG",
        800,
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/",
        "academic research only",
        archives=(
            _DIV2K_TRAIN,
            _div2k("train", 2, "DIV2K", 800, "9a637d2ef4db0d0a81182be37fb00692"),
            _div2k("train", 3, "DIV2K", 800, "ad80b9fe40c049a07a8a6c51bfab3b6d"),
            _div2k("train", 4, "DIV2K", 800, "76c43ec4155851901ebbe8339846d93d"),
        ),
        names=("{:04d}", 1),
    ),
    "Flickr2K": Origin(
        "training SR, noise, JPEG",
        2650,
        "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar",
        "research, photographers' rights",
        archives=(_FLICKR2K,),
        mirrors=(_FLICKR2K_HR,),
        names=("{:06d}", 1),
    ),
    "BSDS400": Origin("training noise, JPEG", 400, "https://github.com/BIDS/BSDS500", "non-commercial research", archives=(_BSDS500,)),
    "WED": Origin("training noise, JPEG", 4744, "https://ece.uwaterloo.ca/~k29ma/exploration/", _RESEARCH, names=("{:05d}", 1)),
    "Rain13K": Origin("training rain", 13712, _RESTORMER, _RESEARCH, pairs=True),
    "DIV2K_val": Origin(
        "validation SR",
        100,
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/",
        "academic research only",
        archives=(
            _DIV2K_VALID,
            _div2k("valid", 2, "DIV2K_val", 100, "1512c9a3f7bde2a1a21a73044e46b9cb"),
            _div2k("valid", 3, "DIV2K_val", 100, "18b1d310f9f88c13618c287927b29898"),
            _div2k("valid", 4, "DIV2K_val", 100, "21962de700c8d368c6ff83314480eff0"),
        ),
        names=("{:04d}", 801),
    ),
    "Set5": Origin("test SR", 5, _BENCHMARK.url, _RESEARCH, archives=(_BENCHMARK,)),
    "Set14": Origin("test SR", 14, _BENCHMARK.url, _RESEARCH, archives=(_BENCHMARK,)),
    "B100": Origin("test SR", 100, _BENCHMARK.url, "non-commercial research", archives=(_BENCHMARK,), mirrors=(_BSDS500,)),
    "Urban100": Origin(
        "test SR, noise",
        100,
        "https://github.com/jbhuang0604/SelfExSR",
        _RESEARCH,
        archives=(_BENCHMARK,),
        mirrors=(_URBAN100_HR,),
        names=("img_{:03d}", 1),
    ),
    "Manga109": Origin("test SR", 109, "http://www.manga109.org/en/", "academic use, on request"),
    "CBSD68": Origin("test noise, color", 68, "https://github.com/BIDS/BSDS500", "non-commercial research", archives=(_BSDS500,)),
    "Kodak24": Origin("test noise, color", 24, _FFDNET, "free use", names=("kodim{:02d}", 1)),
    "McMaster": Origin("test noise, color", 18, _FFDNET, _RESEARCH),
    "Set12": Origin("test noise, gray", 12, _FFDNET, _RESEARCH),
    "BSD68": Origin("test noise, gray", 68, _FFDNET, "non-commercial research"),
    "Classic5": Origin("test JPEG, gray", 5, _FBCNN, _RESEARCH),
    "LIVE1": Origin("test JPEG", 29, _FBCNN, _RESEARCH),
    "Rain100L": Origin("test rain", 100, _RESTORMER, _RESEARCH, pairs=True),
    "Rain100H": Origin("test rain", 100, _RESTORMER, _RESEARCH, pairs=True),
    "Test100": Origin("test rain", 98, _RESTORMER, _RESEARCH, pairs=True),
    "Test1200": Origin("test rain", 1200, _RESTORMER, _RESEARCH, pairs=True),
    "Test2800": Origin("test rain", 2800, _RESTORMER, _RESEARCH, pairs=True),
}

# Names of groups of sets.
GROUPS = {
    "DF2K": ("DIV2K", "Flickr2K"),
    "DFWB": ("DIV2K", "Flickr2K", "WED", "BSDS400"),
    "benchmark": ("Set5", "Set14", "B100", "Urban100"),
}

"""Image folders, tar shards, Hugging Face datasets, textures, dead leaves and point sets, and the order of examples in
training.

`open_source` and `open_folder` return a Dataset; the other names are the parts that they are made of.
"""

from diffusion.data.augment import augment, crops_and_flips
from diffusion.data.dataset import Dataset, standardized
from diffusion.data.images.cache import Packed, pack
from diffusion.data.images.container import LeftOut
from diffusion.data.images.decoding import Header, ImageError, PixelFormat, decode, read_header, resize_and_crop
from diffusion.data.images.index import Entry
from diffusion.data.images.open_folder import open_folder
from diffusion.data.images.report import table
from diffusion.data.images.scan import FolderError, Scan, scan
from diffusion.data.sources import SOURCES, DataOptions, open_source
from diffusion.data.spec import DataSpec
from diffusion.data.stream import SampleStream
from diffusion.data.synthetic.dead_leaves import Leaves, dead_leaves
from diffusion.data.synthetic.digits import write_digits
from diffusion.data.synthetic.points import Lattice, SwissRoll, lattice, mixture, swiss_roll
from diffusion.data.synthetic.texture import texture

__all__ = [
    "SOURCES",
    "DataOptions",
    "DataSpec",
    "Dataset",
    "Entry",
    "FolderError",
    "Header",
    "ImageError",
    "Lattice",
    "Leaves",
    "LeftOut",
    "Packed",
    "PixelFormat",
    "SampleStream",
    "Scan",
    "SwissRoll",
    "augment",
    "crops_and_flips",
    "dead_leaves",
    "decode",
    "lattice",
    "mixture",
    "open_folder",
    "open_source",
    "pack",
    "read_header",
    "resize_and_crop",
    "scan",
    "standardized",
    "swiss_roll",
    "table",
    "texture",
    "write_digits",
]

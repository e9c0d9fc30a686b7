"""The experiments of Sohl-Dickstein et al. (2015, arXiv 1503.03585), rerun.

    python -m benchmarks.experiments swissroll
    python -m benchmarks.experiments mixing
    python -m benchmarks.experiments deadleaves --minutes 90
    python -m benchmarks.experiments texture --data PHOTOGRAPH --minutes 20
    python -m benchmarks.experiments cifar10 --data FOLDER --minutes 90
    python -m benchmarks.experiments fashion --data FOLDER --minutes 10
    python -m benchmarks.experiments photographs --data FOLDER --minutes 10

Each trains, measures, and compares with the numbers of the paper and of later ones. [--out FILE] and [--check] are as
in the other benchmarks. Networks and figures are left in a folder beside the JSON. docs/experiments.md says what is
inferred about the originals, and where the numbers come from.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import common
from benchmarks.common import Goal, Rows
from benchmarks.experiments import dead_leaves, images, mixing, swiss_roll, texture
from benchmarks.experiments.setting import Experiment, Setting
from diffusion.errors import InputError

EXPERIMENTS: dict[str, Experiment] = {
    "swissroll": swiss_roll.run,
    "mixing": mixing.run,
    "deadleaves": dead_leaves.run,
    "texture": texture.run,
    "cifar10": images.cifar10,
    "fashion": images.fashion,
    "photographs": images.photographs,
}


def main(arguments: list[str] | None = None) -> None:
    options = common.parser(__doc__, "experiments")
    names = ", ".join(EXPERIMENTS)
    options.add_argument("experiments", nargs="+", choices=EXPERIMENTS, metavar="EXPERIMENT", help=names)
    options.add_argument(
        "--data",
        type=Path,
        help="a photograph for texture, a folder of them for photographs, the original files for cifar10 and fashion",
    )
    options.add_argument(
        "--minutes", type=float, default=10.0, help="time of training; swissroll and mixing take the time they need"
    )
    chosen = options.parse_args(arguments)
    setting = Setting(chosen.out.with_suffix(""), chosen.minutes, chosen.data)
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    for name in chosen.experiments:
        try:
            found, bounds = EXPERIMENTS[name](setting)
        except InputError as error:
            options.error(f"{name}: {error}")
        tables |= found
        goals += bounds
    common.finish(goals, tables, chosen.out, check=chosen.check, values="mean ± half the 95 % interval")
    print(f"figures: {setting.folder}")


if __name__ == "__main__":
    main()

"""A small folder of images, and one run trained on it, that many tests look at and none changes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, config
from diffusion.config import Config
from diffusion.training import train
from tests.forkserver import Forked, launch

ROOT = Path(__file__).parents[1]
SIDE = 8
PER_CLASS = 20
# The seconds after which a process hangs, on any machine with any other work.
HANGS_S = 240

# `pytest -m quick`, the inner loop, takes less than 30 seconds. It runs the tests of formulas, networks, names and
# configurations, which start no processes and no training: all tests of these folders and files but the slow ones.
QUICK_FOLDERS = {"backbones", "likelihood", "operators", "restoration"}
QUICK_FILES = {
    *("architecture", "config", "denoiser", "distillation", "draw", "errors", "files", "gaussian", "grids", "guidance"),
    *("noise_levels", "objectives", "precision", "randomness", "registries", "samplers", "schedules"),
}
# Each of these takes about half a second or more.
SLOW = {
    "backbones/test_backbone.py": {"test_compiled_blocks_compute_the_same_and_share_code"},
    "backbones/test_fourier.py": {"test_a_network_rounds_to_levels_with_them_and_not_without"},
    "likelihood/test_bound.py": {
        "test_a_wrong_denoiser_has_a_looser_bound",
        "test_k_above_the_null_is_a_bound_on_the_cost_of_destroying_the_data",
        "test_k_in_continuous_time_is_the_log_likelihood",
        "test_k_is_a_bound_whose_gap_falls_as_one_over_the_steps",
        "test_the_bound_on_8_bit_data_is_that_of_their_probability",
        "test_the_bound_on_a_mixture_is_tight_to_first_order",
        "test_the_bound_on_gaussian_data_is_tight_to_first_order",
    },
    "likelihood/test_flow.py": {
        "test_a_label_chooses_its_component_and_guidance_of_1_changes_nothing",
        "test_all_sign_vectors_together_are_the_exact_trace",
        "test_fixed_steps_converge_with_their_order",
        "test_gaussian_images_of_64_numbers_within_a_thousandth_of_a_nat",
        "test_mixtures_in_the_plane_within_a_thousandth_of_a_nat",
        "test_probes_are_unbiased_and_know_their_variance",
        "test_the_denoiser_runs_in_the_precision_of_x",
    },
    "likelihood/test_given.py": {
        "test_every_example_has_its_own_conditional_density",
        "test_gray_levels_have_their_conditional_probability",
        "test_the_chain_rule_holds_to_a_millionth_in_continuous_time",
        "test_the_chain_rule_of_a_mixture",
        "test_the_conditional_bound_is_above_the_entropy_by_one_over_the_steps",
        "test_the_conditional_bound_of_a_mixture_is_tight_to_first_order",
    },
    "likelihood/test_importance.py": {
        "test_path_weights_of_quantized_data_give_their_probability",
        "test_the_average_of_the_path_weights_is_the_likelihood",
        "test_the_bound_is_called_reliable_only_when_enough_paths_count",
        "test_what_a_reliable_bound_misses_is_about_half_its_variance",
    },
    "likelihood/test_kl.py": {
        "test_in_continuous_time_the_reverse_variance_is_no_matter",
        "test_the_bound_in_continuous_time_is_the_entropy",
    },
    "restoration/test_fitting.py": {"test_a_smaller_image_is_the_middle_of_a_larger_one"},
    "restoration/test_methods.py": {
        "test_jpeg_is_restored_by_methods_that_linearize",
        "test_the_evidence_is_that_of_what_a_mask_shows",
    },
    "restoration/test_particles.py": {
        "test_the_evidence_is_within_its_interval_of_the_exact_one",
        "test_the_square_error_falls_as_one_over_the_particles",
    },
    "restoration/test_posterior.py": {"test_every_sampler_draws_from_the_exact_posterior"},
    "restoration/test_problem.py": {"test_without_noise_y_must_be_what_an_example_gives"},
    "restoration/test_replacement.py": {"test_replacement_is_biased_and_repeats_repair_it"},
    "restoration/test_resampling.py": {"test_the_error_of_the_evidence_falls_as_the_square_root_of_the_particles"},
    "restoration/test_tiles.py": {
        "test_chains_are_drawn_exactly_to_the_order_of_the_sampler",
        "test_what_lies_around_something_known_is_exact_too_and_nearer_than_by_windows",
        "test_windows_that_agree_draw_too_little_variance_and_correlation",
    },
    "restoration/test_windows.py": {
        "test_a_large_image_is_restored_as_by_the_exact_denoiser",
        "test_samples_have_no_seam_where_windows_begin",
    },
    "test_objectives.py": {"test_the_hybrid_term_is_least_at_the_exact_reverse_variance"},
    "test_samplers.py": {"test_weak_order_of_options"},
}


def quick(path: Path) -> bool:
    """Whether a file has quick tests."""
    inside = path.relative_to(ROOT / "tests")
    if len(inside.parts) == 1:
        return inside.stem.removeprefix("test_") in QUICK_FILES
    return str(inside.parent) in QUICK_FOLDERS


def only_quick(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "quick")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the quick tests to one thread, as their tensors are too small for more, and heeds SIGHUP and SIGINT, which
    tests under nohup and in the background of a shell would inherit as ignored.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if only_quick(config):
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the quick tests."""
    for item in items:
        slow = SLOW.get(item.path.relative_to(ROOT / "tests").as_posix(), set())
        if quick(item.path) and item.name.partition("[")[0] not in slow:
            item.add_marker(pytest.mark.quick)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the files without quick tests if only those are wanted, as importing them takes seconds."""
    others = collection_path.suffix == ".py" and not quick(collection_path)
    return True if others and only_quick(config) else None


# Processes of tests share the cores.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw_shapes(folder: Path, per_class: int = PER_CLASS, side: int = SIDE) -> Path:
    """Writes disks and squares of random color and place, each kind in a subfolder of its own."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for name in ("disk", "square"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            top, left = rng.integers(2, side - 2, 2)
            down, right = abs(rows - top), abs(columns - left)
            inside = down**2 + right**2 <= 4 if name == "disk" else np.maximum(down, right) <= 1
            colors = rng.integers(0, 256, (2, 3), dtype=np.uint8)
            Image.fromarray(np.where(inside[..., None], colors[0], colors[1])).save(folder / name / f"{i:02d}.png")
    return folder


def tiny(folder: Path, **sections: dict[str, object]) -> Config:
    """Returns a configuration that trains in a second, with sections merged into it."""
    tree: dict[str, dict[str, object]] = {
        "data": {"path": str(folder), "size": SIDE, "labels": True, "held_out": 0.2},
        "backbone": {"name": "unet", "channels": [8, 16], "blocks": 1, "attention": [1]},
        "training": {"steps": 12, "batch": 8, "precision": "fp32", "warmup": 2},
        "report": {"log": 1, "pictures": 4, "images": 4, "draws": 2, "restored": 1},
        "sampling": {"steps": 4, "precision": "fp32"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return config.from_dict(tree)


def torchrun(count: int) -> list[str]:
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]


def start(launcher: list[str], *arguments: str, folder: Path = ROOT) -> Forked:
    """Starts a Python program by a launcher, whose processes have one thread each; all of them are forks."""
    return launch(["-m", *launcher, *arguments], folder=folder, env=alone())


def start_afresh(launcher: list[str], *arguments: str) -> subprocess.Popen[str]:
    """Starts the same program without forks: each process imports what it needs."""
    pipe, command = subprocess.PIPE, [sys.executable, "-m", *launcher, *arguments]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=alone())


def alone() -> dict[str, str]:
    """Returns the environment variables of a process of one thread that imports this checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def finish(launched: subprocess.Popen[str] | Forked) -> tuple[int, str, str]:
    """Waits for a process and returns its exit code, output and errors."""
    try:
        out, err = launched.communicate(timeout=HANGS_S)
    except subprocess.TimeoutExpired:
        launched.terminate()  # Unlike when it is killed, it takes its processes with it.
        out, err = launched.communicate()
    assert launched.returncode is not None
    return launched.returncode, out, err


def image_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs a command that must end with exit code 2 and one message, and returns the message."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    text = capsys.readouterr().err
    message = text[text.index("error: ") :]
    assert "Traceback" not in text
    return message


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "images")


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps, which no test may change; `run` is a copy."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    experiment = tiny(shapes, training={"steps": 40}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    assert train(experiment, run) == 0
    return run


@pytest.fixture(scope="session")
def restorer(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps that learned to restore, a noise level for every pixel, which no test may change."""
    run = tmp_path_factory.mktemp("runs") / "restorer"
    experiment = tiny(shapes, training={"steps": 40}, observed={"share": 0.5}, report={"checkpoint": 40})
    assert train(experiment, run) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))

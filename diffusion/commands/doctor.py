"""`diffusion doctor`: reports the facts about this machine that belong in a bug report, and what is broken on it. Of a
configuration it says whether signals and gradients pass through its network (`propagating.py`).

Every check is independent of the others and imports what it examines itself, so that a package that cannot be imported
is a finding and does not end the report. Names of home folders do not appear.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import get_args, get_type_hints

from packaging.requirements import Requirement

from diffusion.commands.foreign import DISTRIBUTION, foreign
from diffusion.commands.options import Doctor
from diffusion.errors import InputError, require

# With less free disk space than this many bytes a run of images will soon stop.
SPACE = 2e9
# The processes of one machine exchange gradients through shared memory. Containers often have only 64 MB.
SHARED = 1e9
PATIENCE_S = 120
# The width of the names.
WIDTH = len(DISTRIBUTION) + 2
SAME_SOURCE = "pip install --upgrade --force-reinstall torch torchvision, both from the same index"


@dataclass(frozen=True)
class Finding:
    """A line of the report. A `cure` says that something is wrong; if it is `broken`, it cannot be used at all."""

    name: str
    text: str
    cure: str = ""
    broken: bool = False

    def __str__(self) -> str:
        mark = "BROKEN: " if self.broken else ""
        return f"{self.name:{WIDTH}s}{mark}{self.text}" + (f"\n{'':{WIDTH}s}-> {self.cure}" if self.cure else "")


def doctor(options: Doctor) -> int:
    """Prints the report of this machine, or of the network of a configuration; returns 1 if something is broken, or if
    the network is outside of the trainable range. Raises InputError for a picture of no network.
    """
    if options.config is not None:
        return _network(options.config, options)
    require(options.out is None, "--out", "given with a CONFIG, whose network it draws", options.out)
    findings = examine()
    print(report(findings))
    return int(any(finding.broken for finding in findings))


def _network(path: Path, options: Doctor) -> int:
    """Reports on the network of a configuration; returns 1 if it is outside of the trainable range."""
    from diffusion import config
    from diffusion.commands import propagating

    out = options.out
    require(out is None or out.suffix.lower() == ".png", "--out", "a file that ends with .png", out)
    network = propagating.examined(config.load(path, options.overrides))
    for name, line in zip_longest(("network",), propagating.table(network), fillvalue=""):
        print(Finding(name, line))
    text, cure = propagating.verdict(network)
    print(Finding("verdict", text, cure))
    if out is not None:
        print(Finding("picture", str(propagating.drawn(network, out))))
    return int(bool(cure))


def examine() -> list[Finding]:
    """Runs all checks and returns their findings."""
    return [finding for check in CHECKS for finding in _findings(check)]


def report(findings: list[Finding]) -> str:
    """Writes the findings as text, with a verdict at the end."""
    broken, notes = (sum(f.broken is state and bool(f.cure) for f in findings) for state in (True, False))
    verdict = "nothing is broken" if not broken else f"{broken} broken"
    return "\n".join([*map(str, findings), f"{'verdict':{WIDTH}s}{verdict}{f', {notes} to look at' if notes else ''}"])


def _findings(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # No fault of the machine may hide the other findings.
        name = check.__name__.strip("_")
        yield Finding(name, f"{type(error).__name__}: {error}", "this check itself failed; see the error", broken=True)


def _system() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("system", f"{platform.platform()}, {cores} CPUs, {memory / 1e9:.1f} GB of memory")
    yield Finding("python", f"{platform.python_version()} ({platform.python_implementation()})")


def _packages() -> Iterator[Finding]:
    """Compares the versions of this package's requirements, and of their requirements, with those installed."""
    try:
        yield Finding(DISTRIBUTION, importlib.metadata.version(DISTRIBUTION))
        needed = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(DISTRIBUTION, "not installed, run from its folder", "pip install -e .")
        return
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is None:
            yield _version(requirement)


def _foreign() -> Iterator[Finding]:
    for other in foreign():
        yield Finding("foreign", other.text.replace(str(Path.home()), "~"), other.cure, broken=other.broken)


def _version(requirement: Requirement) -> Finding:
    name = requirement.name
    wrong = _unmet(requirement)
    if wrong:
        return Finding(name, wrong, f'pip install --upgrade "{requirement}"', broken=True)
    for other in map(Requirement, importlib.metadata.requires(name) or []):
        if (other.marker is None or other.marker.evaluate({"extra": ""})) and (wrong := _unmet(other)):
            both = SAME_SOURCE if {name, other.name} == {"torch", "torchvision"} else f'pip install "{other}"'
            return Finding(name, f"{_installed(name)} needs {other}, but {other.name} is {wrong}", both, broken=True)
    return Finding(name, str(_installed(name)))


def _unmet(requirement: Requirement) -> str:
    """Says why a requirement is not met; empty if it is met."""
    version = _installed(requirement.name)
    if version is None:
        return "not installed"
    return (
        "" if requirement.specifier.contains(version, prereleases=True) else f"{version}, not {requirement.specifier}"
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torchvision() -> Iterator[Finding]:
    # It runs in another process, because code that was compiled for another torch may end the process without raising.
    command = [sys.executable, "-c", "import torch, torchvision; print(torch.__version__, torchvision.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode == 0:
        yield Finding("imports", f"torch and torchvision ({done.stdout.strip()})")
        return
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    yield Finding(
        "imports",
        f"torch {_installed('torch')} and torchvision {_installed('torchvision')} do not load together: {last}",
        f"one is built for another version or device than the other: {SAME_SOURCE}",
        broken=True,
    )


def _devices() -> Iterator[Finding]:
    import torch

    from diffusion import devices
    from diffusion.commands import hardware

    yield Finding("torch", f"built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        cure = "update the driver, or install a torch built for CUDA; until then everything runs on the CPU"
        yield Finding("gpu", "there is an NVIDIA driver, but torch finds no GPU", cure)
    for name in devices.present():
        try:
            found = hardware.abilities(torch.device(name))
        except RuntimeError as error:
            last = str(error).strip().partition("\n")[0]
            yield Finding(name, f"does not work: {last}", f"take another device by {devices.OPTION}", broken=True)
            continue
        yield Finding(name, found.lines[0])
        for line in found.lines[1:-1]:
            yield Finding("", line)
        yield Finding("", found.lines[-1], found.cure)


def _chosen() -> Iterator[Finding]:
    from diffusion import devices, distributed

    try:
        wanted = devices.wanted()
        reason = "" if wanted.word == devices.AUTO else f", as {wanted.source} asks"
        yield Finding("device", f"commands take {distributed.device()}{reason}")
    except InputError as error:
        yield Finding("device", str(error), f"unset {devices.VARIABLE}, or start fewer processes", broken=True)


def _shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        cure = "give a container more with --shm-size=1g: GPUs of one machine exchange gradients through it"
        yield Finding("shm", f"{free / 1e9:.2f} GB free", cure if free < SHARED else "")


def _disk() -> Iterator[Finding]:
    from diffusion.data.images.scan import default_cache

    for name, folder in (("cache", default_cache()), ("here", Path.cwd())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        text = f"{_without_home(folder)}, {free / 1e9:.1f} GB free"
        if not os.access(existing, os.W_OK):
            cure = "set DIFFUSION_CACHE to another folder" if name == "cache" else "give another folder with --out"
            yield Finding(name, f"{text}, cannot be written to", cure, broken=True)
        else:
            yield Finding(name, text, "free some space before training" if free < SPACE else "")


def _without_home(path: Path) -> str:
    """A path with ~ in place of the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _trackers() -> Iterator[Finding]:
    from diffusion.config import ReportConfig

    names = [name for name in get_args(get_type_hints(ReportConfig)["tracker"]) if name]
    installed = [name for name in names if importlib.util.find_spec(name)]
    yield Finding(
        "trackers", ", ".join(installed) or f"none of {', '.join(names)} is installed; metrics.jsonl needs none"
    )


def _launcher() -> Iterator[Finding]:
    from torch import distributed as dist

    programs = [name for name in ("torchrun", "accelerate") if shutil.which(name)]
    backends = [name for name in ("gloo", "nccl") if dist.is_available() and dist.is_backend_available(name)]
    yield Finding("launchers", f"{', '.join(programs) or 'none on the PATH'}; {', '.join(backends) or 'no backends'}")
    variables = [f"{name}={os.environ[name]}" for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if name in os.environ]
    if variables:
        yield Finding("launched", " ".join(variables))


CHECKS = (
    *(_system, _packages, _foreign, _torchvision),
    *(_devices, _chosen, _shared_memory, _disk, _trackers, _launcher),
)

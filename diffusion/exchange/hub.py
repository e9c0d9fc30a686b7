"""Files of a repository on the Hugging Face hub, in the cache of its library: those that are asked for, and no code.

    hf://OWNER/NAME                     the newest files
    hf://OWNER/NAME@REVISION            those of a branch, a tag or a commit
    hf://OWNER/NAME/PATH                a file or a folder in the repository

Every file is compared by size and hash with what the hub says of it. In offline mode (HF_HUB_OFFLINE), and where the
hub cannot be reached, files are taken from the cache. Tokens are left to the library. Errors are made here, from the
kind of a failure alone, so that no token can get into what is printed.
"""

from __future__ import annotations

import glob
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import huggingface_hub
from huggingface_hub import HfApi, errors
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from diffusion.checkpoint import file_hash
from diffusion.errors import InputError
from diffusion.progress import draws, say

# The name of a repository, OWNER/NAME, and an address, which as a path of the command line has one slash at its colon.
REPO = re.compile(r"\w[\w.-]*/[\w.-]+")
ADDRESS = re.compile(
    rf"hf:/{{1,2}}(?P<repo>{REPO.pattern})(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<inside>[^@]+?))?/?"
)
# The roots of the modules whose errors mean that the hub was not reached.
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp")


@dataclass(frozen=True)
class Address:
    """A repository, at a revision, and a file or a folder in it; the last two may be empty."""

    repo: str
    revision: str = ""
    inside: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address. Raises InputError for one that is not written as it should be."""
        parts = ADDRESS.fullmatch(text)
        if not parts or ".." in PurePath(text).parts:
            raise InputError(f"{text}: must be hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/PATH")
        return cls(parts["repo"], parts["revision"] or "", parts["inside"] or "")

    def __str__(self) -> str:
        revision, inside = self.revision and f"@{self.revision}", self.inside and f"/{self.inside}"
        return f"hf://{self.repo}{revision}{inside}"


@dataclass(frozen=True)
class File:
    """What the hub says of a file: its size, and its sha256 or, of small files, the hash that git has for it."""

    size: int | None
    sha256: str
    git: str


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, with its files by name. `cached` is its folder in the cache where the hub is not
    asked; the files are then those in this folder.
    """

    address: Address
    commit: str
    files: Mapping[str, File]
    cached: Path | None = None


def look_up(address: Address) -> Repository:
    """Asks the hub for the commit and the files of an address, or else the cache.

    Raises InputError, which says what to do, for what is not there, not open to this user, or neither reached nor in
    the cache.
    """
    try:
        with _explained(address):
            info = HfApi().model_info(address.repo, revision=address.revision or None, files_metadata=True)
    except Unreached as error:
        return _from_cache(address, error.why)
    files = {
        each.rfilename: File(each.size, each.lfs.sha256 if each.lfs else "", each.blob_id or "")
        for each in info.siblings or ()
    }
    return Repository(address, str(info.sha), files)


def download(repository: Repository, chosen: list[str]) -> Path:
    """Downloads files of a repository that are not in the cache yet, and returns the folder that holds them.

    Raises InputError for a file that is not what the hub says, and as `look_up` does.
    """
    if repository.cached is not None:
        return repository.cached
    address = repository.address
    # The name of the revision is given, as the cache keeps which commit it was for those who are offline later.
    patterns = [glob.escape(name) for name in chosen]
    try:
        with _explained(address), _quiet():
            folder = Path(
                huggingface_hub.snapshot_download(
                    address.repo, revision=address.revision or None, allow_patterns=patterns
                )
            )
    except Unreached as error:
        raise InputError(f"{address}: the download stopped, as {error.why}; the same command goes on") from None
    for name in chosen:
        _check(folder / name, repository.files[name], f"{address}: {name}")
    return folder


def _check(path: Path, known: File, name: str) -> None:
    """Raises InputError for a file that is missing or not what the hub says of it."""
    if not path.is_file():
        raise InputError(f"{name}: is missing after the download; try again")
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        raise InputError(f"{name}: has {size:,} bytes and not {known.size:,}; delete {path.resolve()} and try again")
    same = file_hash(path) == known.sha256 if known.sha256 else known.git in ("", _git_hash(path))
    if not same:
        raise InputError(f"{name}: is not what the hub has, by its hash; delete {path.resolve()} and try again")


def _git_hash(path: Path) -> str:
    """The hash by which git knows a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _from_cache(address: Address, why: str) -> Repository:
    """The files of an address that are in the cache. Raises InputError where there are none."""
    try:
        # No pattern, so that the cache is not asked whether it has all of them: code was never downloaded.
        folder = Path(
            huggingface_hub.snapshot_download(
                address.repo, revision=address.revision or None, local_files_only=True, allow_patterns=[]
            )
        )
    except (errors.LocalEntryNotFoundError, FileNotFoundError, ValueError):
        raise InputError(
            f"{address}: is not in the cache, and {why}; connect, or name a folder on this machine"
        ) from None
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    say(f"{address}: taken from the cache at commit {folder.name[:12]}, as {why}")
    return Repository(address, folder.name, {name: File(None, "", "") for name in names}, folder)


class Unreached(Exception):
    """The hub was not asked or did not answer, and `why`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turns errors of the library into InputError that says what to do, or into Unreached."""
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise Unreached("the hub is not asked, as HF_HUB_OFFLINE is set") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status >= 500:
            raise Unreached(f"the hub answers with status {status}") from None
        raise InputError(f"{address}: {_said(address, error, status)}") from None
    except (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError):
        raise Unreached("the hub cannot be reached") from None
    except errors.HFValidationError:
        raise InputError(f"{address}: {address.repo} is no name of a repository; check it") from None
    except OSError as error:
        if of_network(error):
            raise Unreached("the hub cannot be reached") from None
        raise InputError(f"{address}: cannot be kept in the cache of the hub ({error.strerror})") from None
    except Exception as error:
        if not of_network(error):
            raise
        raise Unreached("the hub cannot be reached") from None


def of_network(error: Exception) -> bool:
    """Whether an error of the library means that the hub was not reached."""
    return type(error).__module__.partition(".")[0] in NETWORK


def _said(address: Address, error: errors.HfHubHTTPError, status: int) -> str:
    """What is said of an answer of the hub."""
    kinds: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, "is gated: accept its terms on its page on the hub, then log in by: hf auth login"),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or a private one: check its name, or log in by: hf auth login",
        ),
        (errors.RevisionNotFoundError, f"has no revision {address.revision!r}; leave out @ for the newest"),
        (errors.EntryNotFoundError, "has lost a file since it was listed; try again"),
    ]
    for kind, text in kinds:
        if isinstance(error, kind):
            return text
    if status in (401, 403):
        return "the hub refuses this token; log in again by: hf auth login"
    return f"the hub answers with status {status}; try again later"


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out the bars of the library where they cannot be drawn."""
    if draws(sys.stderr) or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()

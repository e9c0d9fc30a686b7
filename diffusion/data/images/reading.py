"""Reads members of a container: headers and hashes, why others cannot be read, and which of them are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from diffusion.data.images import store
from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import Header, ImageError, read_header
from diffusion.data.images.formats import HEAD
from diffusion.data.images.junk import OWN, carries_settings
from diffusion.data.images.unread import unread_content

# Returns the header and the hash of a member that has not changed since they were read, else None.
Known: TypeAlias = Callable[[Member], tuple[Header, bytes] | None]


@dataclass(frozen=True)
class Read:
    """A member with its header and a hash of its bytes; `own` if it is a result of this package."""

    member: Member
    header: Header
    digest: bytes
    own: bool = False


@dataclass(frozen=True)
class Failed:
    """A member that could not be read; `transient` if another pass may be able to read it.

    `suffix` is that of the format that the file has, if that is one which is not read.
    """

    path: str
    reason: str
    transient: bool
    suffix: str | None = None


def read(container: Container, before: Known | None, member: Member) -> Read | Failed:
    """Reads a member of a container, unless it is known `before`, or returns the reason why it could not be read."""
    if before is not None and (known := before(member)):
        return Read(member, *known)
    try:
        with container.open(member.path, member.offset, member.size) as file:
            try:
                header = read_header(member.path, file)
            except ImageError as error:
                file.seek(0)
                suffix = None if error.transient else unread_content(file.read(HEAD))
                return Failed(member.path, error.reason, error.transient, suffix)
            own = carries_settings(header.format, file)
            file.seek(0)
            return Read(member, header, store.digest(file), own)
    except ImageError as error:
        return Failed(member.path, error.reason, error.transient)
    except OSError as error:
        return Failed(member.path, error.strerror or str(error), transient=True)


@dataclass
class Images:
    """The images among what was read: not the results of this package, unless `only_results` are there.

    Others that could not be read are added to `walk`, or to `problems`. Another pass over the same files gives the same
    if it is `lasting`.
    """

    results: Iterable[Read | Failed]
    walk: Walk
    problems: list[tuple[str, str]] = field(default_factory=list)
    lasting: bool = True
    only_results: bool = False

    def __iter__(self) -> Iterator[Read]:
        """Yields the images in their order; where all are results of this package, at the end."""
        own: list[Read] | None = []
        for result in self.results:
            if isinstance(result, Failed):
                self._leave_out(result)
            elif not result.own:
                own = None
                yield result
            else:
                self.walk.skipped[OWN] += 1
                if own is not None:
                    own.append(result)
        if own:
            self.only_results = True
            self.walk.skipped[OWN] -= len(own)
            yield from own

    def _leave_out(self, failed: Failed) -> None:
        self.lasting &= not failed.transient
        if failed.suffix is None:
            self.problems.append((failed.path, failed.reason))
        else:
            self.walk.not_read(failed.suffix, failed.path)

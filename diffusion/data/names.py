"""Names of examples that are read from disk, or made, only when they are indexed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")


class Lazy(Sequence[Item]):
    """A sequence whose items are made when they are indexed."""

    @abstractmethod
    def item(self, number: int) -> Item:
        """Makes the item at a number in 0, ..., len - 1."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        numbers = range(len(self))[index]
        return self.item(numbers) if isinstance(numbers, int) else tuple(map(self.item, numbers))


class _Texts(Lazy[str]):
    """A sequence of texts that equals any other sequence of the same texts."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))


@dataclass(frozen=True, eq=False)
class Names(_Texts):
    """N texts whose UTF-8 bytes lie in `text` (bytes,): the i-th from `starts[i]` to `ends[i]`, (N,) each.

    Without `starts`, each begins where the one before it ends. `pages` (N,) are numbers from 0 that are written behind
    the names, counted from 1, as in stack.tif#3; -1 stands for none. Bytes that are not UTF-8 are shown as backslashes
    and hexadecimal digits.
    """

    text: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64] | None = None
    pages: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def encoded(self, number: int) -> bytes:
        """Returns the bytes of the name at a number, without its page."""
        before = self.ends[number - 1] if number else np.int64(0)
        start = before if self.starts is None else self.starts[number]
        return self.text[start : self.ends[number]].tobytes()

    def item(self, number: int) -> str:
        """Decodes the name at a number."""
        name = self.encoded(number).decode("utf-8", "backslashreplace")
        return name if self.pages is None or self.pages[number] < 0 else f"{name}#{self.pages[number] + 1}"


@dataclass(frozen=True, eq=False)
class Numbered(_Texts):
    """`length` names made of the source of the examples and their numbers: roll/0, roll/1, ..."""

    source: str
    length: int

    def __len__(self) -> int:
        return self.length

    def item(self, number: int) -> str:
        """Makes the name at a number."""
        return f"{self.source}/{number}"


@dataclass(frozen=True, eq=False)
class _Chosen(_Texts):
    names: Sequence[str]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def item(self, number: int) -> str:
        return self.names[int(self.numbers[number])]


def select(names: Sequence[str], numbers: npt.NDArray[np.int64]) -> Sequence[str]:
    """Returns the names at the numbers as a sequence that copies none of them."""
    return _Chosen(names.names, names.numbers[numbers]) if isinstance(names, _Chosen) else _Chosen(names, numbers)

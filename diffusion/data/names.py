"""Names of examples that stay on disk, or are not made, until they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")


class Lazy(Sequence[Item]):
    """A sequence whose items are made when they are asked for."""

    @abstractmethod
    def item(self, number: int) -> Item:
        """The item with a number of 0, 1, ..."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        numbers = range(len(self))[index]
        return self.item(numbers) if isinstance(numbers, int) else tuple(map(self.item, numbers))


class _Texts(Lazy[str]):
    """Texts that are equal to any other sequence of the same texts."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))


@dataclass(frozen=True, eq=False)
class Names(_Texts):
    """Texts as UTF-8 one behind the other, `text` (bytes,), and where each ends, `ends` (N,).

    Bytes that are not UTF-8 are shown as backslashes and hexadecimal digits.
    """

    text: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def encoded(self, number: int) -> bytes:
        """The bytes of a name."""
        return self.text[self.ends[number - 1] if number else 0 : self.ends[number]].tobytes()

    def item(self, number: int) -> str:
        """A name, decoded."""
        return self.encoded(number).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, eq=False)
class Numbered(_Texts):
    """`length` names that say where examples come from and which they are: roll/0, roll/1, ..."""

    source: str
    length: int

    def __len__(self) -> int:
        return self.length

    def item(self, number: int) -> str:
        """A name."""
        return f"{self.source}/{number}"


@dataclass(frozen=True, eq=False)
class _Chosen(_Texts):
    names: Sequence[str]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def item(self, number: int) -> str:
        return self.names[int(self.numbers[number])]


def choose(names: Sequence[str], numbers: npt.NDArray[np.int64]) -> Sequence[str]:
    """The names with these numbers, none of which is copied."""
    return _Chosen(names.names, names.numbers[numbers]) if isinstance(names, _Chosen) else _Chosen(names, numbers)

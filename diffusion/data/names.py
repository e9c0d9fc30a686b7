"""Names of examples that stay on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt


class _Texts(Sequence[str]):
    """A sequence of texts that is equal to any other with the same texts."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return tuple(self._text(i) for i in range(*index.indices(len(self))))
        return self._text(range(len(self))[index])

    def _text(self, number: int) -> str:
        raise NotImplementedError


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

    def _text(self, number: int) -> str:
        return self.encoded(number).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, eq=False)
class _Chosen(_Texts):
    names: Sequence[str]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def _text(self, number: int) -> str:
        return self.names[int(self.numbers[number])]


def choose(names: Sequence[str], numbers: npt.NDArray[np.int64]) -> Sequence[str]:
    """The names with these numbers, none of which is copied."""
    return _Chosen(names.names, names.numbers[numbers]) if isinstance(names, _Chosen) else _Chosen(names, numbers)

from __future__ import annotations

import numpy as np
import pytest

from diffusion.data.names import Names, select

TEXTS = (b"a.png", b"", b"caf\xe9.png", "größe.png".encode())
SHOWN = ("a.png", "", "caf\\xe9.png", "größe.png")


@pytest.fixture
def names() -> Names:
    return Names(np.frombuffer(b"".join(TEXTS), np.uint8), np.cumsum([len(text) for text in TEXTS]))


def test_names_are_a_sequence_of_texts_that_can_be_printed(names: Names) -> None:
    assert (len(names), tuple(names), names[-1], names[1:3]) == (4, SHOWN, SHOWN[-1], SHOWN[1:3])
    assert tuple(names.encoded(i) for i in range(4)) == TEXTS
    with pytest.raises(IndexError):
        names[4]


def test_names_are_equal_to_the_same_texts_only(names: Names) -> None:
    assert names == SHOWN
    assert names == list(SHOWN)
    assert names != SHOWN[:3]
    assert names != (*SHOWN[:3], "x")
    assert names != "text"


def test_chosen_names_follow_the_numbers_through_any_number_of_choices(names: Names) -> None:
    assert select(names, np.array([3, 0, 2])) == (SHOWN[3], SHOWN[0], SHOWN[2])
    assert select(select(names, np.array([3, 0, 2])), np.array([2, 0])) == (SHOWN[2], SHOWN[3])
    assert select(SHOWN, np.array([1])) == ("",)


def test_names_may_lie_anywhere_in_the_text_and_have_pages() -> None:
    text = np.frombuffer(b"stack.tifa.png", np.uint8)
    starts, ends, pages = np.array([9, 0, 0]), np.array([14, 9, 9]), np.array([-1, 0, 11], np.int32)
    names = Names(text, ends, starts, pages)
    assert names == ("a.png", "stack.tif#1", "stack.tif#12")
    assert [names.encoded(i) for i in range(3)] == [b"a.png", b"stack.tif", b"stack.tif"]

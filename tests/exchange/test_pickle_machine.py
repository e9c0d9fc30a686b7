"""The machine makes the values that pickle makes, of what torch.save writes, and refuses everything else."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict

import pytest
import torch

from diffusion.errors import InputError
from diffusion.exchange import pickle_machine
from diffusion.exchange.pickle_machine import Storage, View, run

# A program for {"x": 2 x 3 floats}: up to the storage, the storage, and what follows offset, shape and strides.
BEGIN = b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n("
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ"
END = b"\x89ccollections\nOrderedDict\n)RtRs."


def instructions(*values: object) -> bytes:
    return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)


PLACE = instructions(0, (2, 3), (3, 1))


def plain(rng: random.Random, depth: int = 0) -> object:
    """A random plain value."""
    kind = rng.randrange(8 if depth < 4 else 5)
    if kind == 5:
        return [plain(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return tuple(plain(rng, depth + 1) for _ in range(rng.randrange(6)))
    if kind == 7:
        keys = (rng.choice((rng.randrange(-99, 99), f"ключ {rng.random()}")) for _ in range(rng.randrange(4)))
        return {key: plain(rng, depth + 1) for key in keys}
    return rng.choice((None, True, False, rng.random(), rng.randrange(-(2**62), 2**62), rng.randrange(300), "é\n"))


@pytest.mark.parametrize("seed", range(30))
def test_plain_values_are_those_of_pickle(seed: int) -> None:
    value = plain(random.Random(seed))
    code = pickle.dumps([value, OrderedDict(a=value), value], 2)
    made = run(code, "x")
    expected = pickle.loads(code)
    assert made == expected
    assert repr(made) == repr(expected).replace(repr(expected[1]), repr(dict(expected[1])))


def test_a_tensor_is_its_place_in_a_storage() -> None:
    assert run(BEGIN + STORAGE + PLACE + END, "x") == {"x": View(Storage("0", torch.float32, 6), 0, (2, 3), (3, 1))}
    view = View(Storage("0", torch.float32, 6), 3, (2, 3), (1, 2))
    assert view.count == 6 and view.end == 3 + 1 + 4 + 1
    assert View(view.storage, 99, (2, 0), (1, 1)).end == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"", "damaged (ValueError"),
        (b"\x80\x02}", "damaged (ValueError: 'pickle exhausted before seeing STOP')"),
        (b".", "damaged (IndexError"),
        (b"}h\x05.", "damaged (KeyError"),
        (b"\x85.", "damaged (IndexError"),
        (b"t.", "damaged (IndexError"),
        (b"}(X\x01\0\0\0xu.", "damaged (ValueError"),
        (b"K\x01K\x02K\x03s.", "items for a int"),
        (b"K\x01(K\x02e.", "items for a int"),
        (b"K\x01}b.", "items for a int"),
        (b"(" * 100 + b".", "nested at most 64 deep"),
        (b"}" + b"0" * 5, "the instruction POP"),
        (b"cos\nsystem\n(X\x05\0\0\0falsetR.", "the name 'os.system'"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93.", "the instruction STACK_GLOBAL"),
        (b"(S'mkdir ran'\nios\nsystem\n.", "the instruction STRING"),
        (b"(ios\nsystem\n.", "the instruction INST"),
        (b"\x82\x01.", "the instruction EXT1"),
        (b"K\x01)R.", "a call of int"),
        (b"X\x02\0\0\0hiQ.", "kept elsewhere"),
        (b"P12\n.", "the instruction PERSID"),
        (b"\x8a\xff" + b"\xff" * 254 + b"\x7f.", "numbers of 64 bits"),
        (BEGIN + STORAGE + PLACE + b"\x89}X\x01\0\0\0aK\x01stRs.", "arguments that it does not take"),
        (BEGIN + STORAGE + PLACE + b"\x89)tRs.", "arguments that it does not take"),
        (BEGIN + b"K\x01" + PLACE + END, "arguments that it does not take"),
        (BEGIN + STORAGE.replace(b"K\x06", b"J\xff\xff\xff\xff") + PLACE + END, "and no storage"),
        (BEGIN + STORAGE.replace(b"torch\nFloatStorage", b"torch\nFloatTensor") + PLACE, "'torch.FloatTensor'"),
        (b"L" + b"9" * 5000 + b"L\n.", "damaged (ValueError"),
        (b"X\xff\xff\xff\xff", "damaged (ValueError"),
        (b"X\x02\0\0\0\xff\xfe.", "damaged (UnicodeDecodeError"),
    ],
)  # fmt: skip
def test_programs_that_torch_never_writes_are_refused(code: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        run(code, "x.pt: data.pkl")
    assert said in str(caught.value)
    assert str(caught.value).startswith("x.pt: data.pkl") and str(caught.value).isprintable()


def test_a_value_may_hold_itself() -> None:
    made = run(b"}q\0X\x01\0\0\0ah\0s.", "x")
    assert isinstance(made, dict) and made["a"] is made


def test_a_long_program_is_not_run_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MOST_INSTRUCTIONS", 500)
    assert run(b"N" * 498 + b"N.", "x") is None
    with pytest.raises(InputError, match="more than 500 instructions"):
        run(b"N" * 1000 + b".", "x")

"""Files of `torch.save`, and how they are mutated: their bytes, their entries, and the program in them.

Where the entries or the program are mutated, the archive is packed again with the right sizes and checksums, so that
the fault is not found by them.
"""

from __future__ import annotations

import io
import pickletools
import random
import zipfile
from collections.abc import Callable, Mapping

import torch
from torch import nn

from benchmarks.faults import mutated

# What files of attackers call, in every way that a pickle has; each would leave a file named canary.
CALLS = (
    b"cposix\nsystem\n(X\x0c\0\0\0touch canarytR",
    b"c__builtin__\nexec\n(X\x13\0\0\0open('canary', 'w')tR",
    b"X\x08\0\0\0builtinsX\x04\0\0\0eval\x93(X\x13\0\0\0open('canary', 'w')tR",
    b"(S'touch canary'\nios\nsystem\n",
    b"(cos\nsystem\nS'touch canary'\no",
    b"ctorch.storage\n_load_from_bytes\n(X\x02\0\0\0hitR",
    b"ctorch.nn.modules.module\nModule\n)\x81}X\x01\0\0\0aK\x01sb",
    b"ccollections\nOrderedDict\n(]tR",
    b"cos\nsystem\n)R",
)
# Numbers in place of others: offsets, sizes, strides and counts.
NUMBERS = (
    b"K\x00", b"K\x01", b"K\xff", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x06\0\0\0\0\0\x01",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8a\x08\0\0\0\0\0\0\0\x40", b"\x8a\x0a" + b"\xff" * 9 + b"\x7f",
    b"G\x7f\xf0\0\0\0\0\0\0", b"\x88", b"N", b")", b"(K\x02K\x03t", b"X\x01\0\0\x000",
)  # fmt: skip
NUMERIC = ("BININT", "BININT1", "BININT2", "LONG1")


def weight_files() -> list[bytes]:
    """Returns files with the state of a network, of a training, of parameters, and of tensors that share storages."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, generator=generator)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3).half())
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": x}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    contents = (
        network.state_dict(),
        {"epoch": 3, "name": "a run", "model": network.state_dict(), "optimizer": optimizer, "none": None},
        dict(network.named_parameters()),
        {"x": x, "row": x[1], "transposed": x.T, "half": x.bfloat16(), "empty": x[:0], "number": torch.tensor(7)},
    )
    return [_saved(content) for content in contents]


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def mutated_weights(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Returns a file of weights with its bytes, the list of its entries, its entries or its program mutated."""
    kind = rng.randrange(8)
    if kind == 0:
        return mutated(data, other, rng)
    if kind == 1:
        start = data.rindex(b"PK\x05\x06") - rng.choice((0, 100, 600))
        return data[:start] + mutated(data[start:], other, rng)
    entries = _unpacked(data)
    if kind == 2:
        return _with_entries(entries, rng)
    name = next(name for name in entries if name.endswith("/data.pkl"))
    codes = [entries[name], next(code for each, code in _unpacked(other).items() if each.endswith("/data.pkl"))]
    return _packed(entries | {name: rng.choice(PROGRAMS)(codes[0], codes[1], rng)})


def _unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _packed(entries: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            # An entry that is made by its name alone has the time of day in it.
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _with_entries(entries: dict[str, bytes], rng: random.Random) -> bytes:
    """The archive with an entry more, less, changed, or compressed."""
    name = rng.choice(sorted(entries))
    action = rng.randrange(6)
    if action == 0:
        del entries[name]
    elif action == 1:
        entries[name] = mutated(entries[name] or b"\0", b"x" * 64, rng)
    elif action == 2:
        entries[rng.choice(("../canary", "/canary", "x/data.pkl", "x/constants.pkl", "a\\b", "é/data/0"))] = b"hi"
    elif action == 3:
        entries = {key.upper() if key == name else key: value for key, value in entries.items()}
    elif action == 4:
        return _packed(entries, method=zipfile.ZIP_DEFLATED)
    else:
        # The same name again, which zipfile warns of and writes.
        twin = name[:-1] + chr(ord(name[-1]) ^ 1)
        return _packed(entries | {twin: b"hi"}).replace(twin.encode(), name.encode())
    return _packed(entries)


def _steps(code: bytes) -> list[tuple[str, bytes]]:
    """The instructions of a program: their names, and their bytes."""
    listed = [(step.name, position) for step, _, position in pickletools.genops(code)]
    ends = [position for _, position in listed[1:]] + [len(code)]
    return [(name, code[position:end]) for (name, position), end in zip(listed, ends, strict=True)]


def _bytes(code: bytes, other: bytes, rng: random.Random) -> bytes:
    return mutated(code, other, rng)


def _swapped(code: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some instructions become others, with the same arguments."""
    steps = [part for _, part in _steps(code)]
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(steps))
        steps[place] = rng.choice(pickletools.opcodes).code.encode("latin-1") + steps[place][1:]
    return b"".join(steps)


def _moved(code: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some instructions are left out, come twice, or are those of another program."""
    steps, foreign = ([part for _, part in _steps(each)] for each in (code, other))
    for _ in range(rng.choice((1, 1, 3))):
        place, length = rng.randrange(len(steps)), rng.choice((1, 2, 8))
        begin = rng.randrange(len(foreign))
        parts: tuple[list[bytes], ...] = ([], steps[place : place + length] * 2, foreign[begin : begin + length])
        steps[place : place + length] = rng.choice(parts)
    return b"".join(steps)


def _injected(code: bytes, _: bytes, rng: random.Random) -> bytes:
    """A call comes between two instructions, in place of one, or in place of a known name."""
    steps = _steps(code)
    places = [place for place, (name, _) in enumerate(steps) if name == "GLOBAL"] if rng.random() < 0.3 else []
    place, call = rng.choice(places or range(len(steps))), rng.choice(CALLS)
    parts = [part for _, part in steps]
    parts[place : place + rng.randrange(2)] = [call[: call.index(b"(")] if places and b"(" in call[1:] else call]
    return b"".join(parts)


def _absurd(code: bytes, _: bytes, rng: random.Random) -> bytes:
    """Numbers become others, negative and very large ones among them."""
    steps = _steps(code)
    places = [place for place, (name, _) in enumerate(steps) if name in NUMERIC]
    parts = [part for _, part in steps]
    for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2, 9)))):
        parts[place] = rng.choice(NUMBERS)
    return b"".join(parts)


PROGRAMS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (_bytes, _swapped, _moved, _injected, _absurd)

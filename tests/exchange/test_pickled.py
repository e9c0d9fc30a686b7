"""Weights of torch.save are read as torch reads them, to the last bit, and nothing in their files is run."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.exchange import pickled
from diffusion.exchange.pickled import read

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def random_state(seed: int) -> dict[str, Tensor]:
    """Tensors of random bytes: whole, shared, transposed, strided, repeated, empty and of no axes."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = OrderedDict()
    for number in range(rng.randrange(1, 8)):
        dtype = rng.choice(DTYPES)
        shape = [rng.choice((0, 1, 2, 3, 5)) for _ in range(rng.randrange(5))]
        most = 2 if dtype is torch.bool else 256
        count = int(torch.Size(shape).numel()) * dtype.itemsize
        x = torch.randint(most, (count,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)
        name = f"block.{number}.weight"
        state[name] = x
        if x.ndim > 1:
            state[f"{name}.transposed"] = x.transpose(0, -1)
        if x.ndim and len(x) > 1:
            state[f"{name}.part"] = x[1:]
            state[f"{name}.strided"] = x[::2]
        if x.ndim == 1 and len(x):
            state[f"{name}.repeated"] = x[None].expand(3, -1)
        if rng.random() < 0.3:
            state[f"{name}.again"] = x
    return state


def contents(x: Tensor) -> bytes:
    return torch.empty(x.shape, dtype=x.dtype).copy_(x.detach()).view(-1).view(torch.uint8).numpy().tobytes()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, x in theirs.items():
        y = ours[name]
        assert (y.dtype, y.shape, y.stride(), y.storage_offset()) == (x.dtype, x.shape, x.stride(), x.storage_offset())
        assert contents(y) == contents(x), name
        assert not y.requires_grad
    for a in theirs:
        shared = [theirs[a].untyped_storage().data_ptr() == theirs[b].untyped_storage().data_ptr() for b in theirs]
        assert shared == [ours[a].untyped_storage().data_ptr() == ours[b].untyped_storage().data_ptr() for b in ours]


@pytest.mark.parametrize("seed", range(25))
def test_random_states_are_read_as_torch_reads_them(tmp_path: Path, seed: int) -> None:
    torch.save(random_state(seed), tmp_path / "x.pt")
    same(read(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True))


def test_the_state_of_a_network_with_its_versions_and_parameters(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 3).half())
    for content in (network.state_dict(), dict(network.named_parameters()), network.state_dict(keep_vars=True)):
        torch.save(content, tmp_path / "x.bin")
        same(read(tmp_path / "x.bin"), torch.load(tmp_path / "x.bin", weights_only=True))


def test_a_dictionary_within_a_checkpoint_is_found_or_named(tmp_path: Path) -> None:
    path, x, y = tmp_path / "x.ckpt", torch.arange(3.0), torch.ones(2, 2)
    # As optimizers of torch write it: the moments of each parameter by its number.
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": y}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    values = {"epoch": 3, "lr": 1e-4, "name": "é", "none": None, "big": -(2**40), "list": [1, (2, True)], "empty": {}}
    torch.save({**values, "state_dict": {"x": x, "step": 7}, "optimizer": optimizer}, path)
    same(read(path), {"x": x})
    same(read(path, "state_dict"), {"x": x})
    torch.save({"model": {"x": x}, "ema": {"shadow": {"x": y, "z": x}}, "y": y}, path)
    same(read(path, "ema/shadow"), {"x": y, "z": x})
    same(read(path, "model"), {"x": x})
    same(read(path, ""), {"y": y})
    with pytest.raises(InputError, match=r"several dictionaries .*'ema/shadow' \(2\), '' \(1\), 'model' \(1\)"):
        read(path)
    with pytest.raises(InputError, match="no tensors in the dictionary 'emma'"):
        read(path, "emma")


def test_storages_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {"x": torch.ones(2)}, "other": {"y": torch.full((3,), 7.0)}}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((3,), 7.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    same(read(path, "model"), {"x": torch.ones(2)})
    with pytest.raises(InputError, match="checksum"):
        read(path, "other")


class Runs:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Runs(os.system, "mkdir ran"), r"the name '(posix|nt)\.system'"),
        (Runs(eval, "__import__('os').mkdir('ran')"), r"the name 'builtins?\.eval'|the name '__builtin__\.eval'"),
        (Runs(OrderedDict, [("a", 1)]), "a call of collections OrderedDict"),
        (SimpleNamespace(lr=1), r"the name 'types\.SimpleNamespace'"),
        (torch.nn.Linear(1, 1), r"the name 'torch\.nn\.modules\.linear\.Linear'"),
        (torch.ones(2).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.ones(2).to(torch.float8_e4m3fn), "_rebuild_tensor_v3|UntypedStorage"),
        (torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage"),
        (torch.device("cpu"), r"torch\.device"),
        (torch.float16, "the name 'torch.float16'"),
        ({1, 2}, "the name"),
        (2**80, "numbers of 64 bits"),
        ({(1, 2): 3}, "a tuple as a key"),
        ({None: 3}, "a NoneType as a key"),
        (b"bytes", "the name '_codecs.encode'"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_anything_else_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.ones(1), "other": value}, "x.pt")
    with pytest.raises(InputError, match=said) as caught:
        read(Path("x.pt"))
    assert str(caught.value).startswith("x.pt: data.pkl")
    assert os.listdir() == ["x.pt"]
    torch.save(value, "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: "):
        read(Path("x.pt"))


def written(path: Path, program: bytes, *storages: bytes) -> Path:
    """An archive whose pickle is `program`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        for number, data in enumerate(storages):
            archive.writestr(f"x/data/{number}", data)
    return path


def tensor(storage: str = "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ") -> bytes:
    """A program for {"x": tensor of 2 x 3 floats} up to the storage; what follows are offset, shape and strides."""
    return b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n(" + storage.encode()


END = b"\x89ccollections\nOrderedDict\n)RtRs."


def numbers(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The instructions for offset, shape and strides, as pickle writes them."""
    return b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, shape, strides))


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "said"),
    [
        (0, (2, 3), (3, 1), ""),
        (1, (5,), (1,), ""),
        (6, (0,), (1,), ""),
        (0, (2, 2, 2), (1, 1, 1), ""),
        (0, (1, 1), (999, 2**60), ""),
        (0, (2, 3), (3, 2), "within the 6 values of its storage, got shape (2, 3), strides (3, 2) from value 0"),
        (1, (6,), (1,), "within the 6 values"),
        (7, (0,), (1,), ""),
        (0, (2**40,), (0,), "at most 1,048,576 bytes together, got 4,398,046,511,104"),
        (0, (2**61, 2**61, 0), (1, 1, 1), "within the 6 values"),
        (0, (2, 3), (-3, 1), "arguments that it does not take"),
        (-1, (2, 3), (3, 1), "arguments that it does not take"),
        (0, (2, 3), (3,), "arguments that it does not take"),
        (0, (2**62,), (0,), "arguments that it does not take"),
        (0, (1,) * 33, (1,) * 33, "arguments that it does not take"),
        (0, (True,), (1,), "arguments that it does not take"),
        (0, (2.0,), (1,), "arguments that it does not take"),
        (0, [2], (1,), "arguments that it does not take"),
    ],
)
def test_tensors_lie_within_the_bytes_of_their_storage(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], said: str
) -> None:
    values = torch.arange(6.0)
    program = tensor() + numbers(offset, shape, strides) + END
    path = written(tmp_path / "x.pt", program, values.numpy().tobytes())
    if said:
        with pytest.raises(InputError) as caught:
            read(path)
        assert said in str(caught.value)
    else:
        same(read(path), {"x": values.as_strided(shape, strides, offset)})


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (tensor().replace(b"X\x01\0\0\0x", b"X\x01\0\0\0\x07") + numbers(0, (6,), (1,)) + END, "printable characters"),
        (tensor().replace(b"\x000X", b"\x009X") + numbers(0, (6,), (1,)) + END, "'9' is not in the file"),
        (tensor().replace(b"Float", b"Half") + numbers(0, (6,), (1,)) + END, "of 12 bytes, got 24"),
        (b"}.", "holds no tensors by name, but a dict"),
        (b"].", "by name, but a list"),
        (tensor()[9:] + numbers(0, (6,), (1,)) + END[:-2] + b".", "by name, but one tensor"),
    ],
)
def test_names_and_storages_are_checked(tmp_path: Path, program: bytes, said: str) -> None:
    path = written(tmp_path / "x.pt", program, b"\0" * 24)
    with pytest.raises(InputError) as caught:
        read(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()


def test_a_dictionary_that_holds_itself_ends(tmp_path: Path) -> None:
    # {"a": {...itself}, "x": tensor}
    program = tensor().replace(b"}", b"}q\0X\x01\0\0\0ah\0s", 1) + numbers(0, (6,), (1,)) + END
    path = written(tmp_path / "x.pt", program, torch.arange(6.0).numpy().tobytes())
    same(read(path), {"x": torch.arange(6.0)})


def test_a_pickle_of_many_bytes_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.pt", b"N" * 1000 + b".")
    monkeypatch.setattr(pickled, "MOST_AT_ONCE", 900)
    with pytest.raises(InputError, match="at most 900 bytes"):
        read(path)


def test_a_storage_is_in_memory_once_however_many_tensors_share_it(tmp_path: Path) -> None:
    whole = torch.arange(2048, dtype=torch.float16)
    torch.save({str(n): whole[n:] for n in range(50)}, tmp_path / "x.pt")
    ours = read(tmp_path / "x.pt", show=False)
    assert len({x.untyped_storage().data_ptr() for x in ours.values()}) == 1
    assert ours["49"].tolist() == whole[49:].tolist()

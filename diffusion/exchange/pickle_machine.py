"""A machine that runs the pickles of `torch.save` as far as they describe plain values and tensors, and nothing else.

A pickle is a program for a machine with a stack, and that of Python can call any function. This one

- knows only the instructions that plain values, lists, tuples and dictionaries are made of;
- knows three kinds of names: the functions that rebuild a tensor or a parameter, `collections.OrderedDict`, and the
  types of storages, `torch.FloatStorage` and the like; each stands for a value here, and none is looked up anywhere;
- refuses any other instruction or name, and says which.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import torch

from diffusion.errors import InputError, require

# A checkpoint with the state of its optimizer takes some 30 instructions for each tensor.
MOST_INSTRUCTIONS = 1_000_000
# Containers within containers, axes of a tensor, and one more than the largest number in its description.
DEEPEST, MOST_AXES, LARGEST = 64, 32, 1 << 62

Container = TypeVar("Container", dict[object, object], list[object])


class Function(Enum):
    """The functions that a pickle may name. They are told apart here, and never called."""

    TENSOR = "torch._utils _rebuild_tensor_v2"
    PARAMETER = "torch._utils _rebuild_parameter"
    DICT = "collections OrderedDict"


STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """The values of one type in the entry data/`key` of an archive."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class View:
    """The part of a storage that is a tensor: it begins at the value `offset` and has this shape and these strides."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """One past the last value of the storage that it takes; 0 if it takes none, wherever it begins."""
        if not self.count:
            return 0
        return self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)) + 1


def run(code: bytes, where: str) -> object:
    """Returns the value that a pickle describes, with `View` in place of tensors and parameters.

    Raises InputError, which begins with `where`, for any instruction or name that is not known, and for a pickle that
    is damaged or too long.
    """
    machine = _Machine(where)
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(code)):
            if number == MOST_INSTRUCTIONS:
                raise InputError(f"{where} has more than {number:,} instructions, too many for weights")
            machine.step(instruction.name, argument)
        return machine.stack[-1]
    except InputError:
        raise
    except (LookupError, ValueError, OverflowError) as error:
        # The text of an error of pickletools may hold any bytes of the file.
        reason = f"{type(error).__name__}: {ascii(str(error))[:80]}"
        raise InputError(f"{where} is damaged ({reason}); get the file again") from None


class _Machine:
    """A machine with a stack that runs the instructions of plain values, and of the names that are known here."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def step(self, instruction: str, argument: object) -> None:
        """Runs one instruction. Raises InputError for one that is not known, IndexError where the stack is empty."""
        match instruction, argument:
            case "PROTO" | "STOP", _:
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "BINFLOAT", _:
                self.stack.append(argument)
            case "LONG1", int(number):
                require(abs(number) < 1 << 63, self.where, "of numbers of 64 bits", "a longer one")
                self.stack.append(number)
            case "NONE" | "NEWTRUE" | "NEWFALSE", _:
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE", _:
                self.stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[instruction]())
            case "BINPUT" | "LONG_BINPUT", int(place):
                self._memo[place] = self.stack[-1]
            case "BINGET" | "LONG_BINGET", int(place):
                self.stack.append(self._memo[place])
            case "MARK", _:
                require(len(self._below) < DEEPEST, self.where, f"nested at most {DEEPEST} deep", "more")
                self._below.append(self.stack)
                self.stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3", _:
                taken = [self.stack.pop() for _ in range(int(instruction[-1]))]
                self.stack.append(tuple(reversed(taken)))
            case "TUPLE", _:
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS", _:
                items = [self.stack.pop()] if instruction == "APPEND" else self._since_mark()
                self._top(list).extend(items)
            case "SETITEM" | "SETITEMS", _:
                pair = [self.stack.pop(), self.stack.pop()][::-1] if instruction == "SETITEM" else self._since_mark()
                self._set(pair)
            case "BUILD", _:
                # The state of a dictionary, such as the versions of the modules, is not needed.
                self.stack.pop()
                self._top(dict)
            case "GLOBAL", str(name):
                self.stack.append(self._named(name))
            case "BINPERSID", _:
                self.stack.append(self._storage(self.stack.pop()))
            case "REDUCE", _:
                arguments = self.stack.pop()
                self.stack.append(self._called(self.stack.pop(), arguments))
            case _:
                raise self._refused(f"the instruction {instruction}")

    def _since_mark(self) -> list[object]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def _top(self, kind: type[Container]) -> Container:
        """What lies on top of the stack, which must be a dictionary or a list."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise self._refused(f"items for a {type(value).__name__}")
        return value

    def _set(self, pairs: list[object]) -> None:
        """Puts keys and values, one after the other, into the dictionary on top of the stack."""
        target = self._top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 1 << 31):
                raise self._refused(f"a {type(key).__name__} as a key")
            target[key] = value

    def _named(self, name: str) -> Function | torch.dtype:
        if name in STORAGES:
            return STORAGES[name]
        if name in (known.value for known in Function):
            return Function(name)
        raise self._refused(f"the name {ascii('.'.join(name.split(' ', 1)))[:80]}")

    def _storage(self, described: object) -> Storage:
        match described:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count)) if count >= 0:
                return Storage(key, dtype, count)
        raise self._refused("an object that is kept elsewhere, and no storage")

    def _called(self, function: object, arguments: object) -> object:
        """What a function that is known returns for arguments of the right kinds."""
        match function, arguments:
            case Function.DICT, ():
                return {}
            case Function.PARAMETER, (View() as view, bool(), dict() as hooks) if not hooks:
                return view
            case Function.TENSOR, (
                Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                bool(),
                dict() as hooks,
                *rest,
            ) if not hooks and rest in ([], [None], [{}]):
                numbers = (offset, *shape, *strides)
                plain = all(type(n) is int and 0 <= n < LARGEST for n in numbers)
                if plain and len(shape) == len(strides) <= MOST_AXES:
                    return View(storage, offset, shape, strides)
        called = function.value if isinstance(function, Function) else type(function).__name__
        raise self._refused(f"a call of {called} with arguments that it does not take")

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"{self.where} has {what}; only tensors, plain values and dictionaries of them are read: save the "
            "weights alone, {name: tensor}, by torch.save, or ask for the model as safetensors"
        )

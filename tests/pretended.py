"""A GPU that is not there: tensors that say they are on it, and compute on the CPU with real values.

    with pretended("cuda") as ledger:
        model = diffusion.load(run, device="cuda")
        model.sample(4)
    assert ledger.waits.total() == 0

Within the context an operation raises `MixedDevices` where a tensor of the device meets one of the CPU, but for numbers
(0 dimensions), which are arguments of kernels on every device. On "mps" it raises `NoFloat64` where float64 appears.
The ledger counts what makes the host wait for the device: copies that are not both pinned and non-blocking, `.item()`
and its kin, and operations whose result has a size that only the device knows.

It knows nothing of kernels, layouts, numerics, of several processes, or of true asynchrony, such as a pinned buffer
that is used again too early. Those need a device.
"""

# ruff: noqa: ANN401 (the protocols of torch take and return anything)

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # It is imported before the functions that it looks at are replaced.
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from diffusion.restoration import windows

PACKAGE = str(Path(__file__).parents[1] / "diffusion")
# These take indices from the CPU, and wait for the copy of them.
INDEX = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
# The results of these, or their errors, are known to the device alone.
KNOWN_LATE = (
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave"),
    *("aten::_linalg_eigh", "aten::_linalg_svd", "aten::_linalg_check_errors"),
)
DOUBLE = (torch.float64, torch.complex128)
CPU = torch.device("cpu")
GIB = 2**30
APPLE = {"empty_cache": None, "synchronize": None, "current_allocated_memory": GIB, "recommended_max_memory": 8 * GIB}


class MixedDevices(RuntimeError):
    """A tensor of the device met one of the CPU."""


class NoFloat64(TypeError):
    """float64 appeared on a device that has none."""


@dataclass
class Ledger:
    """What happened on the device.

    `waits` counts by (what, where) how often the host waited for it, `queued` the copies to it that were only queued,
    and `kernels` the operations. `where` is the line of the package that asked for it.
    """

    device: torch.device
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    queued: Counter[tuple[str, str]] = field(default_factory=Counter)
    kernels: int = 0

    def clear(self) -> None:
        """Forgets everything so far."""
        self.waits.clear()
        self.queued.clear()
        self.kernels = 0

    def wait(self, what: str) -> None:
        """Notes that the host waits."""
        self.waits[what, caller()] += 1

    def queue(self, what: str) -> None:
        """Notes a copy that the host does not wait for."""
        self.queued[what, caller()] += 1

    def __str__(self) -> str:
        lines = [f"{count:6d} {what:30s} {where}" for (what, where), count in self.waits.most_common()]
        return "\n".join([f"{self.waits.total()} waits", *lines])


def caller() -> str:
    """Returns the innermost line of the package that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside"


class Pretended(Tensor):
    """A tensor on the device; `value` is the tensor on the CPU that it computes with."""

    ledger: Ledger
    value: Tensor

    @staticmethod
    def __new__(cls: type[Pretended], value: Tensor) -> Pretended:
        if cls.ledger.device.type == "mps" and value.dtype in DOUBLE:
            raise NoFloat64(f"MPS has no float64: {caller()}")
        new: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device="cpu"
        )
        new.value = value.detach()
        return new

    def __init__(self, value: Tensor) -> None:
        """Takes the value, which `__new__` has stored."""

    device = property(lambda self: self.ledger.device)  # type: ignore[assignment]
    is_cuda = property(lambda self: self.ledger.device.type == "cuda")  # type: ignore[assignment]
    is_mps = property(lambda self: self.ledger.device.type == "mps")  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretended({self.value!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = Pretended(self.value.clone())
        is_parameter = isinstance(self, nn.Parameter)
        copy = nn.Parameter(copy, self.requires_grad) if is_parameter else copy.requires_grad_(self.requires_grad)
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, ledger = func._schema.name, cls.ledger
        tensors: list[Tensor] = []
        values = [_on_cpu(value, tensors) for value in args]
        options = {key: _on_cpu(value, tensors) for key, value in kwargs.items()} if kwargs else {}
        ledger.kernels += 1
        host = [t for t in tensors if type(t) is not Pretended and t.ndim]
        if name == "aten::copy_" and (host or not isinstance(args[0], Pretended)):
            _note_copy(ledger, args, kwargs or {})
        elif host and not (name in INDEX and isinstance(args[0], Pretended)):
            shapes = [tuple(t.shape) for t in host]
            raise MixedDevices(f"{name}: {shapes} on the CPU met a tensor on {ledger.device}: {caller()}")
        elif host or name in KNOWN_LATE or (name in INDEX and _has_mask(args[1])):
            ledger.wait(name)
        out = func(*values, **options)
        return _on_device(out, tensors)


def _note_copy(ledger: Ledger, args: Any, kwargs: Any) -> None:
    target, source = args[:2]
    asynchronous = kwargs.get("non_blocking") or args[2:3] == (True,)
    if isinstance(target, Pretended) and asynchronous and getattr(source, "pinned", False):
        ledger.queue("copy_")
    elif source.ndim or not isinstance(target, Pretended):
        ledger.wait("copy_")


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


# Torch's own way through arguments, `tree_map`, took most of the time of a test.
def _on_cpu(value: Any, tensors: list[Tensor]) -> Any:
    """Returns an argument with the values of tensors on the CPU, and adds its tensors to those found before."""
    kind = type(value)
    if kind is Pretended:
        tensors.append(value)
        return value.value
    if isinstance(value, (list, tuple)):
        return kind([_on_cpu(each, tensors) for each in value])
    if isinstance(value, Tensor):
        tensors.append(value)
    return CPU if kind is torch.device else value


def _on_device(value: Any, tensors: Sequence[Tensor] = ()) -> Any:
    """Returns a result on the device. A tensor that an operation changed in place stays the one that it was."""
    if isinstance(value, (list, tuple)):
        return type(value)([_on_device(each, tensors) for each in value])
    if not isinstance(value, Tensor):
        return value
    same = next((t for t in tensors if (t.value if type(t) is Pretended else t) is value), None)
    return (Pretended(value) if type(value) is Tensor else value) if same is None else same


class Move(torch.autograd.Function):
    """A copy between the device and the CPU, through which gradients go back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: torch.device, dtype: torch.dtype, options: dict[str, Any]) -> Tensor:
        """Returns x on `device`."""
        ctx.back = x.device, x.dtype
        with torch._C.DisableTorchFunction():
            value = (x.value if isinstance(x, Pretended) else x.detach()).to(dtype, copy=True, **options)
        return value if device.type == "cpu" else Pretended(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Returns the gradient on the device that x came from."""
        return Move.apply(gradient, *ctx.back, {}), None, None, None


class Pretending(TorchFunctionMode):
    """Takes the calls that would go to the device before torch looks for one."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (special := SPECIAL.get(func)) is not None:
            return special(self.ledger, func, args, dict(kwargs or {}))
        if not kwargs:
            return func(*args)
        kwargs = dict(kwargs)
        if kwargs.pop("pin_memory", False):
            pinned = func(*args, **kwargs)
            pinned.pinned = True
            return pinned
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == self.ledger.device.type:
            return self.made(func, args, kwargs)
        return func(*args, **kwargs)

    def made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Makes a tensor on the device. Values that stand in Python are copied to it, and waited for."""
        if func in (torch.tensor, torch.as_tensor):
            self.ledger.wait(func.__name__)
        out = func(*_on_cpu(args, []), **{key: _on_cpu(value, []) for key, value in kwargs.items()} | {"device": CPU})
        return Pretended(out).requires_grad_(out.requires_grad)


def _to(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x, *rest = args
    like = next((r for r in (*rest, kwargs.get("other")) if isinstance(r, Tensor)), None)
    named = [r for r in (kwargs.get("device"), *rest) if isinstance(r, (str, torch.device))]
    types = [r for r in (kwargs.get("dtype"), *rest) if isinstance(r, torch.dtype)]
    device, dtype = (like.device, like.dtype) if like is not None else (x.device, x.dtype)
    device, dtype = torch.device(named[0]) if named else device, types[0] if types else dtype
    options = {name: kwargs[name] for name in ("memory_format",) if kwargs.get(name) is not None}
    if device.type == "meta":
        return torch.empty_like(x, dtype=dtype, device=device)
    if device.type == x.device.type:
        with torch._C.DisableTorchFunction():
            return Tensor.to(x, dtype, copy=bool(kwargs.get("copy")), **options)
    asynchronous = kwargs.get("non_blocking") or any(r is True for r in rest)
    if device.type == ledger.device.type and asynchronous and getattr(x, "pinned", False):
        ledger.queue(f"to {device.type}")
    else:
        ledger.wait(f"to {device.type}")
    return Move.apply(x, device, dtype, options)  # type: ignore[no-any-return]


def _cpu(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return _to(ledger, func, (args[0], torch.device("cpu")), {})


def _cuda(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return _to(ledger, func, (args[0], ledger.device), kwargs)


def _pin(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    with torch._C.DisableTorchFunction():
        pinned: Tensor = args[0].detach().clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _is_pinned(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    return getattr(args[0], "pinned", False)


def _values(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if not isinstance(args[0], Pretended):
        return func(*args, **kwargs)
    if func is not Tensor.tolist:
        raise TypeError(f"can't convert a tensor on {ledger.device} to numpy: {caller()}")
    ledger.wait("tolist")
    return args[0].value.tolist()


def _new_tensor(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    if not isinstance(args[0], Pretended):
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    ledger.wait("new_tensor")
    return Pretended(torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)))


def _one_hot(ledger: Ledger, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    # It makes tensors in C++, unseen from Python. With a number of classes it asks nothing of the device.
    inside = isinstance(args[0], Pretended)
    made: Tensor = func(args[0].value if inside else args[0], *args[1:], **kwargs)
    return Pretended(made) if inside else made


SPECIAL: dict[Any, Callable[[Ledger, Any, Any, dict[str, Any]], Any]] = {
    Tensor.to: _to,
    Tensor.cpu: _cpu,
    Tensor.cuda: _cuda,
    Tensor.pin_memory: _pin,
    Tensor.is_pinned: _is_pinned,
    Tensor.tolist: _values,
    Tensor.numpy: _values,
    Tensor.__array__: _values,
    Tensor.new_tensor: _new_tensor,
    nn.functional.one_hot: _one_hot,
}


def _module_to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Does what `nn.Module.to` does, by replacing parameters and buffers: setting `.data` would break wrappers."""
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)

    def moved(t: Tensor) -> Tensor:
        new = t.detach().to(device or t.device, dtype if dtype is not None and t.is_floating_point() else t.dtype)
        if memory_format is not None and t.ndim == 4:
            inside = isinstance(new, Pretended)
            value = (new.value if inside else new).contiguous(memory_format=memory_format)
            new = Pretended(value) if inside else value
        # An optimizer may hold a parameter that is where it should be.
        stays = new.device == t.device and new.dtype == t.dtype and new.stride() == t.stride()
        return t if stays else nn.Parameter(new, t.requires_grad) if isinstance(t, nn.Parameter) else new

    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[name] = moved(parameter)
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = moved(buffer)
    return module


@contextmanager
def pretended(kind: str = "cuda") -> Iterator[Ledger]:
    """Pretends that the machine has one GPU ("cuda", with 8 GiB, of which 4 are free) or Apple's ("mps")."""
    ledger = Ledger(torch.device(kind, 0) if kind == "cuda" else torch.device(kind))
    autocast, again = torch.autocast.__init__, checkpoint.checkpoint

    def on_cpu(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        autocast(self, "cpu" if device_type == kind else device_type, *args, **kwargs)

    def recomputed(function: Any, *args: Any, **kwargs: Any) -> Any:
        # The backward pass leaves the mode, which the second evaluation has to enter again.
        def inside(*args: Any, **kwargs: Any) -> Any:
            with Pretending(ledger):
                return function(*args, **kwargs)

        return again(inside, *args, **kwargs)

    backward = windows._Call.backward

    def differentiated(*args: Any) -> Tensor:
        with Pretending(ledger):
            return backward(*args)

    run = threading.Thread.run

    def in_thread(self: threading.Thread) -> None:
        # Modes are those of one thread.
        with Pretending(ledger):
            run(self)

    grouped = clip_grad._group_tensors_by_device_and_dtype

    def by_device(lists: Any, with_indices: bool = False) -> Any:
        # C++ takes the tensors for those of the CPU.
        groups = grouped(lists, with_indices)
        return {(found[0][0][0].device, dtype): found for (_, dtype), found in groups.items()}

    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "mem_get_info": (4 * GIB, 8 * GIB),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "set_device": None,
        "manual_seed_all": None,
        "get_device_name": "pretended",
        "get_device_capability": (9, 0),
    }
    patches = [mock.patch.object(Pretended, "ledger", ledger, create=True)]
    if kind == "cuda":
        patches += [mock.patch.object(torch.cuda, name, new=_answering(value)) for name, value in answers.items()]
        patches += [mock.patch.object(torch.cuda, "synchronize", new=_noting(ledger, "synchronize"))]
        patches += [mock.patch.object(torch.cuda, "max_memory_allocated", new=_growing())]
    else:
        patches += [mock.patch.object(torch.backends.mps, "is_available", new=_answering(True))]
        patches += [mock.patch.object(torch.mps, name, new=_answering(value)) for name, value in APPLE.items()]
        patches += [mock.patch.object(torch.mps, "driver_allocated_memory", new=_growing())]
    patches += [
        mock.patch.object(torch.autocast, "__init__", on_cpu),
        mock.patch.object(threading.Thread, "run", in_thread),
        mock.patch.object(clip_grad, "_group_tensors_by_device_and_dtype", by_device),
        mock.patch.object(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(by_device)),
        # It asks C++ for the stream.
        mock.patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check"),
        mock.patch.object(nn.Module, "to", _module_to),
        mock.patch("diffusion.backbones.backbone.checkpoint", recomputed),
        mock.patch.object(windows._Call, "backward", differentiated),
        # Nothing compiles for it.
        mock.patch("diffusion.compilation.obstacle", return_value="the GPU is pretended"),
    ]
    for patch in patches:
        patch.start()
    try:
        with Pretending(ledger):
            yield ledger
    finally:
        for patch in reversed(patches):
            patch.stop()


def _noting(ledger: Ledger, what: str) -> Callable[[object], None]:
    return lambda device=None: ledger.wait(what)


def _answering(value: object) -> Callable[..., object]:
    return lambda *args, **kwargs: value


def _growing() -> Callable[..., object]:
    """Returns what answers how much memory is taken at most: by 1 MiB more whenever it is asked."""
    peaks = itertools.count(GIB, 2**20)
    return lambda *args: next(peaks)

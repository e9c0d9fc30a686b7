"""A model as files that run without this package and without torch: its network as ONNX, and a sampler in NumPy.

    network.onnx    F(x, log-SNR, ...) in float32, for batches of any size (network.onnx.data holds more than 2 GB)
    network.json    the steps of the sampler with the coefficients of the denoiser, and the units of the data
    sample.py       draws samples by them (`sampler_script`)

The network is exported by `torch.export`, and sampled deterministically: by DDIM where the run samples by it, as
students do, and else by DPM-Solver++ 2M.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.backbones import Backbone
from diffusion.errors import InputError, require
from diffusion.exchange import sampler_script
from diffusion.files import new_folder, write_text
from diffusion.model import Model
from diffusion.samplers import DDIM

NETWORK, MODEL, SCRIPT, OUTPUT = "network.onnx", "network.json", "sample.py", "output"
NEEDED = ("onnx", "onnxscript")
# The number of int64 among the types of ONNX.
INT64 = 7
# Two examples are traced. One would be taken for a constant.
TRACED = 2
# The most that the output of the exported network may differ from that of the network, relative to its size: both are
# float32, and sum in other orders.
TOLERANCE = 1e-3


class Deployed(nn.Module):
    """A backbone as a function of those of its inputs that it takes, in the order of `inputs_of`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.inputs = backbone, inputs_of(backbone)

    def forward(self, *given: Tensor) -> Tensor:
        """Returns F, (B, C or 2C, *), without what `Backbone.__call__` checks."""
        named = dict(zip(self.inputs, given, strict=True))
        return self.backbone.forward(
            named["x"], named["log_snr"], named.get("label"), named.get("log_snr_map"), named.get("condition")
        )


def inputs_of(backbone: Backbone) -> tuple[str, ...]:
    """Returns the names of the inputs that a backbone takes, in their order."""
    taken = {
        "x": True,
        "log_snr": True,
        "label": backbone.classes > 0,
        "log_snr_map": backbone.mapped,
        "condition": backbone.condition_channels > 0,
    }
    return tuple(name for name, is_taken in taken.items() if is_taken)


def write(model: Model, folder: Path, *, steps: int | None = None) -> list[str]:
    """Writes the files of a model on the CPU into a new folder, which is whole or not there; returns lines about them.

    `steps` are those of the sampler, by default those of the run. Raises InputError where something lies at `folder`,
    where a package is missing, for steps below 1 and for a number of them other than a student's own.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--to onnx: needs {' and '.join(missing)}: pip install 'reverse-diffusion[onnx]'")
    described = describe(model, steps)
    with new_folder(folder) as temporary:
        network = _network(model)
        examples = _examples(network, model.spec.shape, TRACED)
        _export(network, examples, temporary / NETWORK)
        line = _checked(network, temporary / NETWORK, model.spec.shape)
        write_text(temporary / MODEL, json.dumps(described, indent=1, allow_nan=False))
        shutil.copyfile(sampler_script.__file__, temporary / SCRIPT)
    sampler = "DDIM" if described["order"] == 1 else "DPM-Solver++ 2M"
    return [
        f"{NETWORK}: {', '.join(network.inputs)} -> {OUTPUT}; {line}",
        f"{SCRIPT}: draws by {sampler} in {len(described['steps'])} steps, with numpy and onnxruntime alone",
    ]


def describe(model: Model, steps: int | None = None) -> dict[str, Any]:
    """Returns what the sampler has to know of a model, in a form that JSON can hold.

    Each of its `steps` has the log-SNR, α and σ of its beginning, and the coefficients of the denoiser. `order` is 1
    for DDIM and 2 for DPM-Solver++ 2M. `unlabeled` says whether the network knows examples without a label.
    """
    network, spec, schedule = model.denoiser.backbone, model.spec, model.denoiser.schedule
    assert isinstance(network, Backbone)
    own = model.config.sampling.steps
    require(not model.teacher or steps in (None, own), "steps", f"{own}, for which this model was distilled", steps)
    times = model.config.grid(schedule, own if steps is None else steps)[:-1]
    alpha, sigma = schedule(times)
    columns = {
        "log_snr": schedule.log_snr(times),
        "alpha": alpha,
        "sigma": sigma,
        **model.denoiser.parameterization(alpha, sigma)._asdict(),
    }
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return {
        "network": NETWORK,
        "inputs": list(inputs_of(network)),
        "map_channels": network.map_channels,
        "condition_channels": network.condition_channels,
        "unlabeled": _knows_unlabeled(model),
        "shape": list(spec.shape),
        "mean": spec.mean,
        "std": spec.std,
        "top": spec.top,
        "levels": spec.levels,
        "classes": list(spec.classes),
        "guidance": {"scale": model.config.sampling.guidance, "interval": list(model.config.sampling.interval)},
        "order": 1 if isinstance(model.config.sampler, DDIM) else 2,
        "steps": [dict(zip(columns, row, strict=True)) for row in rows],
    }


def _knows_unlabeled(model: Model) -> bool:
    """Whether the network takes examples without a label."""
    try:
        model.denoiser.network(torch.zeros(1, *model.spec.shape), torch.ones((), dtype=torch.float64))
    except InputError:
        return False
    return True


def _network(model: Model) -> Deployed:
    backbone = copy.deepcopy(model.denoiser.backbone)
    assert isinstance(backbone, Backbone)
    # Float32 as they are: a network may keep a table in float64, which would lose its digits.
    return Deployed(backbone.cpu().eval().requires_grad_(False))


def _examples(network: Deployed, shape: tuple[int, ...], count: int) -> tuple[Tensor, ...]:
    """Inputs for `count` examples of random numbers."""
    random = torch.Generator().manual_seed(0)
    backbone, size = network.backbone, shape[1:]
    level = 4 * torch.randn(count, generator=random)
    known = {
        "x": torch.randn(count, *shape, generator=random),
        "log_snr": level,
        "label": torch.arange(count) % max(1, backbone.classes),
        "log_snr_map": level.reshape(-1, *[1] * len(shape)) + torch.rand(count, backbone.map_channels, *size),
        "condition": torch.randn(count, backbone.condition_channels, *size, generator=random),
    }
    return tuple(known[name] for name in network.inputs)


def _export(network: Deployed, examples: tuple[Tensor, ...], path: Path) -> None:
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in examples),)
    with _quiet():
        traced = torch.export.export(network, examples, dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            input_names=network.inputs,
            output_names=[OUTPUT],
            custom_translation_table={torch.ops.aten.searchsorted.Tensor: _searchsorted},
        )
        assert program is not None
        program.save(path)


def _searchsorted(sorted_sequence: Any, self: Any, *, right: bool = False) -> Any:  # noqa: ANN401, values of a graph
    """The number of entries of a sorted table (n,) that are below values (*), or with `right` at most these: (*).

    The exporter does not know it. Networks look log-SNRs up in tables of a thousand.
    """
    from onnxscript import opset18

    op: Any = opset18
    values, last = op.Unsqueeze(self, op.Constant(value_ints=[-1])), op.Constant(value_ints=[-1])
    before = op.LessOrEqual(sorted_sequence, values) if right else op.Less(sorted_sequence, values)
    return op.ReduceSum(op.Cast(before, to=INT64), last, keepdims=0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporter says of itself from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _checked(network: Deployed, path: Path, shape: tuple[int, ...]) -> str:
    """Evaluates the exported network beside the network, at another size of the batch; says how they differ.

    Raises InputError for one that computes something else.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return "not checked, as there is no onnxruntime"
    import onnxruntime

    examples = _examples(network, shape, TRACED + 1)
    with torch.no_grad():
        expected = network(*examples)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in zip(network.inputs, examples, strict=True)}
    found = torch.from_numpy(session.run([OUTPUT], given)[0])
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-9))
    if not difference <= TOLERANCE:
        raise InputError(f"{path.name}: differs from the network by {difference:.1e} of its output; it is not written")
    return f"checked by onnxruntime, differs by {difference:.0e} of its output"

"""The configuration of one experiment, typed: it is read from TOML, overridden by `section.key=value`, validated as a
whole, and written back resolved.

Sections that choose a component ([backbone], [schedule], [parameterization], [noise_levels], [weighting], [sampler],
[grid]) name it by `name`, a key of the registry in the component's file. Their other keys are that component's own
fields. Nothing in a file can name code outside these registries.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from diffusion import shipped
from diffusion.backbones import BACKBONES, BackboneConfig, UNetConfig
from diffusion.compilation import Compile
from diffusion.conditioning import Condition
from diffusion.data import DataOptions
from diffusion.data.observing import Observing
from diffusion.data.sources import POINTS
from diffusion.denoiser import PARAMETERIZATIONS, EDMPrecond, Parameterization
from diffusion.errors import InputError, closest, nearest, require
from diffusion.files import expanded, read_text
from diffusion.grids import GRIDS, Grid, Karras
from diffusion.noise_levels import NOISE_LEVELS, Adaptive, LogNormal, NoiseLevels
from diffusion.objectives import WEIGHTINGS, EDMError, Exact, Weighting
from diffusion.precision import Precision
from diffusion.samplers import SAMPLERS, Sampler, SDESolver
from diffusion.schedules import EDM, SCHEDULES, Schedule

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
# The width of the EMA that weights all steps alike (`training.ema.std`): no power function of the step is wider.
WIDEST = 12**-0.5


class ConfigError(InputError):
    """A configuration that cannot be used; the message names the key, the value and what is allowed."""


@dataclass(frozen=True)
class ModelConfig:
    """Outputs of the denoiser beside the mean."""

    learned_variance: bool = False
    """Predict the reverse variance too, which needs training.hybrid > 0 or training.trajectory."""
    variance: Literal["sigmoid", "linear"] = "sigmoid"
    """How an output places the variance between its limits: by its sigmoid, or from -1 to 1, as in imported models."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the backbone is trained."""

    steps: Positive = 100_000
    """Optimizer steps."""
    batch: Positive = 64
    """Examples per optimizer step, over all processes and accumulation."""
    accumulate: Positive = 1
    """Parts each process splits its share of the batch into."""
    lr: Annotated[float, Field(gt=0)] = 0.01
    """Peak learning rate of AdamW."""
    warmup: Natural = 100
    """Steps over which the learning rate rises linearly."""
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Last share of the steps over which the learning rate falls to zero, by a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    beta2: Share = 0.99
    """AdamW's decay of squared gradients."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(gt=0, lt=WIDEST)] = 0.05
    """Width of the EMA of the weights, as a share of the training so far."""
    label_dropout: Share = 0.1
    """Share of the labels that are hidden, which classifier-free guidance needs."""
    low_discrepancy: bool = True
    """Space the noise levels of a batch evenly."""
    hybrid: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term of the bound that trains a learned variance."""
    trajectory: Natural = 0
    """Steps, uniform in time, of a trajectory whose bound is minimized instead of the weighted error; 0 for none. Mean
    and variance then learn together."""
    precision: Precision = "auto"
    """Precision of the network; auto is bf16 where the hardware multiplies in it, else fp16 on GPUs, else fp32."""
    compile: Compile = "auto"
    """Compile the network's blocks, which takes some seconds at the first step; auto does on GPUs with a compiler."""
    deterministic: bool = False
    """Take steps that are the same to the last bit on a GPU too, which takes longer; auto then does not compile."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them, which takes less memory and more time."""
    seed: int = 0
    """Seed of the initial weights, the order of the examples, their augmentation and noise, and dropout."""
    init: str = ""
    """A run, a checkpoint or hf://OWNER/NAME@REVISION, whose averaged weights the first step begins from."""
    patience: Natural = 0
    """Validations in a row without an improvement of the held-out bound by more than chance after which a run ends; 0
    for none."""
    em: Natural = 0
    """Rounds that follow the steps of a run on images with holes: each completes the training images by the network,
    trains on the completions, and is kept if the held-out bound of what was seen improves."""
    em_draws: Positive = 1
    """Completions of each training image in a round."""
    em_steps: Natural = 0
    """Optimizer steps of a round; 0 for as many as training.steps."""


@dataclass(frozen=True)
class ReportConfig:
    """The pictures, numbers and checkpoints of a run, and after how many steps each is made."""

    log: Positive = 20
    """Steps between rows of logged numbers."""
    samples: Positive = 1000
    """Steps between pictures of samples."""
    evaluate: Positive = 1000
    """Steps between validations on held-out examples."""
    checkpoint: Positive = 1000
    """Steps between checkpoints."""
    keep: Positive = 2
    """Number of newest checkpoints that are kept."""
    keep_every: Natural = 0
    """Also keep the checkpoints of multiples of this many steps; 0 for none."""
    keep_best: bool = True
    """Also keep the checkpoint with the lowest held-out bound, among those whose bound was measured."""
    pictures: Positive = 64
    """Samples in a picture."""
    restored: Natural = 4
    """Held-out images that are restored at the end of a run; 0 for none. Students and models of points restore none."""
    images: Positive = 512
    """Held-out examples in a validation during training."""
    draws: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    """Steps of the bound that are drawn for each of these examples, in two independent halves."""
    training_images: Natural = 512
    """Training examples that a validation measures too, no more than held-out ones, to see when the model begins to
    remember them; 0 for none."""
    tracker: Literal[
        "", "tensorboard", "wandb", "trackio", "mlflow", "aim", "comet_ml", "clearml", "dvclive", "swanlab"
    ] = ""
    """An accelerate tracker that receives every logged number too."""


@dataclass(frozen=True)
class SamplingConfig:
    """The defaults of `diffusion sample`, which its options override."""

    steps: Positive = 15
    """Steps of the sampler; the default was chosen by measurements with the reverse SDE (docs/measurements.md)."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Classifier-free guidance scale; 1 is off."""
    interval: tuple[float, float] = (-1e9, 1e9)
    """Log-SNRs between which guidance acts."""
    precision: Precision = "auto"
    """Precision of the network in sampling; likelihoods and restorations that differentiate it use float32."""
    compile: Compile = "auto"
    """Compile the network's blocks; auto does on GPUs with a compiler, for as many samples as pay for it."""

    def __post_init__(self) -> None:
        require(self.interval[0] < self.interval[1], "interval", "an increasing pair of log-SNRs", self.interval)


@dataclass(frozen=True)
class DistillationConfig:
    """The teacher of a model that learns to sample in few evaluations; `diffusion distill` fills it in."""

    teacher: str = ""
    """A run folder, whose model this one learns to match in sampling.steps evaluations; without one it learns from
    data."""
    substeps: Positive = 3
    """Steps of the teacher for each of these evaluations."""


@dataclass(frozen=True)
class Config:
    """Everything that defines an experiment."""

    data: DataOptions = DataOptions()
    backbone: BackboneConfig = UNetConfig()
    model: ModelConfig = ModelConfig()
    schedule: Schedule = EDM()
    parameterization: Parameterization = EDMPrecond()
    noise_levels: NoiseLevels = LogNormal()
    weighting: Weighting = EDMError()
    training: TrainingConfig = TrainingConfig()
    report: ReportConfig = ReportConfig()
    sampler: Sampler = SDESolver()
    grid: Grid = Karras()
    sampling: SamplingConfig = SamplingConfig()
    distillation: DistillationConfig = DistillationConfig()
    observed: Observing = Observing()
    condition: Condition = Condition()

    @property
    def mapped(self) -> bool:
        """Whether the network takes a noise level for every pixel."""
        return self.observed.share > 0 or bool(self.data.masks)

    @property
    def observes(self) -> bool:
        """Whether the network learns from examples of which pixels are observed, as the method "learned" needs.

        A network that knows of unseen pixels alone takes maps too, but it has never met a pixel that is known.
        """
        return self.observed.share > 0

    @property
    def conditioned(self) -> bool:
        """Whether the network is told an observation of an example beside x_t."""
        return bool(self.condition.operator or self.data.condition)

    def condition_channels(self, channels: int) -> int:
        """The channels that the network of images of so many channels receives beside x_t."""
        if not self.conditioned:
            return 0
        return self.condition.channels(self.data.paired_channels if self.data.condition else channels)

    def __post_init__(self) -> None:
        _check_condition(self)
        if self.mapped and (self.training.trajectory or self.training.hybrid):
            key = "trajectory" if self.training.trajectory else "hybrid"
            rule = f"with training.{key}, whose bound has one noise level for all pixels, got"
            if self.data.masks:
                raise ConfigError(f"data.masks: must be unset {rule} {self.data.masks!r}")
            raise ConfigError(f"observed.share: must be 0 {rule} {self.observed.share:g}")
        if self.data.masks and self.distillation.teacher:
            raise ConfigError(
                "data.masks: must be unset with distillation.teacher, as a student learns from whole images, got "
                f"{self.data.masks!r}; name a folder of undamaged images, or of samples of the teacher"
            )
        if self.training.trajectory and self.training.hybrid:
            raise ConfigError(
                f"training.hybrid: must be 0 with training.trajectory, which has its term, got {self.training.hybrid}"
            )
        if not self.training.trajectory and self.model.learned_variance != (self.training.hybrid > 0):
            raise ConfigError(
                "training.hybrid: must be positive exactly when model.learned_variance is true, "
                f"got {self.training.hybrid} and {self.model.learned_variance}"
            )
        if isinstance(self.noise_levels, Adaptive) and not isinstance(self.weighting, Exact):
            raise ConfigError(
                "weighting.name: must be exact where noise_levels.name is "
                f"{_name_of(NOISE_LEVELS, type(self.noise_levels))}, as the objective would change with the noise "
                f"levels under any other, got {_name_of(WEIGHTINGS, type(self.weighting))}"
            )
        if self.training.em:
            _check_rounds(self)
        if self.training.patience:
            _check_patience(self)
        if self.training.batch % self.training.accumulate:
            raise ConfigError(
                f"training.accumulate: must divide batch ({self.training.batch}), got {self.training.accumulate}"
            )


def _check_condition(experiment: Config) -> None:
    """Raises ConfigError for an operator whose observations of the data the network cannot be told."""
    data, condition = experiment.data, experiment.condition
    if not condition.operator:
        return
    for key, value, why in (
        ("data.source", data.source in POINTS and data.source, "operators act on images"),
        ("data.condition", data.condition, "the network is told either"),
        ("data.masks", data.masks, "an operator mixes pixels that nobody has seen into the others"),
    ):
        if value:
            raise ConfigError(f"condition.operator: must be empty with {key} = {value!r}, as {why}")
    try:
        condition.family.check((data.channels, *data.shape))
    except InputError as error:
        where = "condition." if str(error).startswith("operator") else "condition.operator: "
        raise ConfigError(f"{where}{error}") from None


def _check_rounds(experiment: Config) -> None:
    """Raises ConfigError where the images of an experiment cannot be completed in rounds."""
    for key, value, fits, rule in (
        ("observed.share", experiment.observed.share, experiment.observed.share > 0, "above 0"),
        ("data.held_out", experiment.data.held_out, experiment.data.held_out > 0, "above 0"),
        ("data.margin", experiment.data.margin, experiment.data.margin == 0, "0"),
        ("distillation.teacher", experiment.distillation.teacher, not experiment.distillation.teacher, "unset"),
    ):
        if not fits:
            why = "whose rounds complete images of the model's size and end by the held-out bound"
            raise ConfigError(f"{key}: must be {rule} with training.em, {why}, got {value!r}")


def _check_patience(experiment: Config) -> None:
    """Raises ConfigError where a run cannot end by its held-out bound."""
    teacher, em, patience = experiment.distillation.teacher, experiment.training.em, experiment.training.patience
    for name, given, why in (
        ("distillation.teacher", teacher, "as a student has no bound by which it could end"),
        ("training.em", em, "whose rounds follow all steps of a run and end by the bound themselves"),
    ):
        if given:
            raise ConfigError(f"training.patience: must be 0 with {name}, {why}, got {patience}")
    for name, value, fits, rule in (
        ("data.held_out", experiment.data.held_out, experiment.data.held_out > 0, "above 0"),
        ("report.images", experiment.report.images, experiment.report.images > 1, "at least 2"),
    ):
        if not fits:
            raise ConfigError(f"{name}: must be {rule} with training.patience, which judges by it, got {value}")


def refuse_undrawn_tails(experiment: Config) -> None:
    """Refuses to begin a run whose objective no batch can estimate: an integral over all log-SNRs, drawn by a
    log-normal distribution, which hardly ever draws those in its tails. Runs begun with such a
    configuration may go on.

    Raises ConfigError that says what to set.
    """
    noise_levels, weighting = experiment.noise_levels, experiment.weighting
    if weighting.per_log_snr and isinstance(noise_levels, LogNormal) and noise_levels.uniform == 0:
        raise ConfigError(
            f"noise_levels.uniform: must be positive where weighting.name is {_name_of(WEIGHTINGS, type(weighting))} "
            "and noise_levels.name is log_normal, as the weight of the log-SNRs in its tails is too large for any "
            "batch to estimate, got 0; set, for example, noise_levels.uniform = 0.1, or noise_levels.name = 'uniform'"
        )


def refuse_guidance_of_nothing(experiment: Config) -> None:
    """Refuses to begin a run that is to be sampled with guidance, which would have nothing to guide by.

    Runs begun with such a configuration may go on. Raises ConfigError that says what to set.
    """
    scale, training = experiment.sampling.guidance, experiment.training
    if scale != 1 and not (experiment.data.labels and training.label_dropout) and not experiment.distillation.teacher:
        key = "training.label_dropout" if experiment.data.labels else "data.labels"
        value = "0" if experiment.data.labels else "false"
        raise ConfigError(
            f"sampling.guidance: must be 1 where {key} is {value}, as guidance compares the estimates with and without "
            f"a label, got {scale:g}"
        )


REGISTRIES: dict[str, Mapping[str, type]] = {
    "backbone": BACKBONES,
    "schedule": SCHEDULES,
    "parameterization": PARAMETERIZATIONS,
    "noise_levels": NOISE_LEVELS,
    "weighting": WEIGHTINGS,
    "sampler": SAMPLERS,
    "grid": GRIDS,
}

# Keys by section that have had another name: old configurations and overrides are still read.
RENAMED: dict[str, dict[str, str]] = {
    "report": {"grid": "pictures"},
    "training": {"start": "init"},
    "noise_levels": {"spread": "uniform"},
    "sampler": {"fraction": "variance_interp"},
}


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file, or the shipped one of that name, and applies overrides like `training.batch=32`.

    The values of overrides are TOML too, in which quotes may be left out. Raises ConfigError naming the file, the key
    and the nearest valid one.
    """
    found = locate(path)
    try:
        tree = tomllib.loads(read_text(found))
    except InputError as error:
        raise ConfigError(str(error)) from None
    except (ValueError, OSError, RecursionError) as error:
        backslash = any(word in str(error).lower() for word in ("unescaped", "hex value"))
        hint = "; folders of Windows are written with / or in single quotes, as 'C:\\photos'" if backslash else ""
        raise ConfigError(f"{path}: not a TOML file: {error}{hint}") from None
    for name, values in tree.items():
        if isinstance(values, dict):
            tree[name] = _renamed(name, values, str(path))
    _override_all(tree, overrides)
    return from_dict(tree, where=str(path))


def locate(path: Path) -> Path:
    """Returns the TOML file that a path means: itself, or with .toml, or the shipped configuration of that name.

    Raises ConfigError that names the nearest one.
    """
    path, known = expanded(path), shipped.configurations()
    bare = path.name == str(path) and path.name
    here = path if path.suffix == ".toml" or not path.name else path.with_name(f"{path.name}.toml")
    for file in (path, here):
        if file.is_file():
            return file
    if bare and here.stem in known:
        return known[here.stem]
    if path.is_dir():
        raise ConfigError(
            f"{path}: is a folder, not a TOML file; to train on its images: diffusion train folder64 data.path={path}"
        )
    beside = path.parent.glob("*.toml") if path.parent.is_dir() else ()
    names = {name: name for name in known} | {file.stem: str(file) for file in beside}
    near = closest(here.stem, names)
    hint = f"did you mean {names[near]}?" if near else f"the shipped ones are {', '.join(known)}"
    raise ConfigError(f"{path}: no such config file; {hint}")


def override(experiment: Config, overrides: Sequence[str]) -> Config:
    """Returns the experiment with overrides as for `load`. Raises ConfigError."""
    tree = to_dict(experiment)
    _override_all(tree, overrides)
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any], *, where: str = "config") -> Config:
    """Returns a validated Config from nested plain values, as TOML or JSON gives them. Raises ConfigError."""
    defaults = {f.name: f.default for f in fields(Config)}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: must be sections of keys and values, got {tree!r}")
    _check_keys(tree, defaults, where)
    sections: dict[str, Any] = {}
    for name, values in tree.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: {name}: must be a section of keys and values, got {values!r}")
        section = _renamed(name, values, where)
        cls = _choose(name, section, where) if name in REGISTRIES else type(defaults[name])
        sections[name] = _validate(cls, section, name, where)
    try:
        return Config(**sections)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _renamed(section: str, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the values of a section under the names of today. Raises ConfigError for a key under both names."""
    names = RENAMED.get(section, {})
    for old, new in names.items():
        if old in values and new in values:
            raise ConfigError(f"{where}: {section}.{old}: is called {section}.{new} now; give it once")
    return {names.get(key, key): value for key, value in values.items()}


def to_dict(config: Config) -> dict[str, Any]:
    """Returns every key with its value, as plain values that JSON has too; the inverse of `from_dict`."""
    tree: dict[str, Any] = {}
    for section in fields(config):
        value = getattr(config, section.name)
        tree[section.name] = asdict(value)
        if section.name in REGISTRIES:
            tree[section.name] = {"name": _name_of(REGISTRIES[section.name], type(value)), **tree[section.name]}
    return tree


def _choose(name: str, section: dict[str, Any], where: str) -> type:
    registry = REGISTRIES[name]
    choice = section.pop("name", _default_name(name))
    if not isinstance(choice, str) or choice not in registry:
        valid = ", ".join(registry)
        near = nearest(choice, registry, quoted=True)
        raise ConfigError(f"{where}: {name}.name: must be one of {valid}, got {choice!r}{near}")
    return registry[choice]


def _default_name(section: str) -> str:
    default = next(f.default for f in fields(Config) if f.name == section)
    return _name_of(REGISTRIES[section], type(default))


def _name_of(registry: Mapping[str, type], cls: type) -> str:
    return next(key for key, value in registry.items() if value is cls)


def _validate(cls: type, values: dict[str, Any], section: str, where: str) -> Any:  # noqa: ANN401, the type depends on the section
    _check_keys(values, [f.name for f in fields(cls)], where, f"{section}.")
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":  # The component itself raised it, as "field: rule, got value".
            raise ConfigError(f"{where}: {section}.{message.removeprefix(f'{section}.')}") from None
        field, *rest = first["loc"]
        # Numbers in the rest are positions in a list; the other entries are pydantic's names for the types of a union.
        key = ".".join(map(str, (section, field, *(part for part in rest if isinstance(part, int)))))
        words = re.findall(r"'([^']*)'", message) if first["type"] == "literal_error" else ()
        text = f"{message[0].lower() + message[1:]}, got {first['input']!r}{nearest(first['input'], words)}"
        raise ConfigError(f"{where}: {key}: {text}") from None


def _check_keys(
    values: Mapping[str, Any], valid: Sequence[str] | Mapping[str, Any], where: str, prefix: str = ""
) -> None:
    for key in values:
        if key not in valid:
            raise ConfigError(
                f"{where}: {prefix}{key}: no such key{nearest(key, valid, quoted=True)}; valid: {', '.join(valid)}"
            )


def _override_all(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Applies overrides, under old or new names, to sections that have the names of today."""
    parsed = [_parse(override) for override in overrides]
    for section in RENAMED:
        _renamed(section, {key: value for name, key, value in parsed if name == section}, "overrides")
    # Names first: they drop the keys of another component, and must not drop those given beside them.
    for section, key, value in sorted(parsed, key=lambda parts: parts[1] != "name"):
        _override(tree, section, RENAMED.get(section, {}).get(key, key), value)


def _parse(override: str) -> tuple[str, str, Any]:
    """Returns section, key and value of an override."""
    name, separator, text = override.partition("=")
    parts = name.strip().split(".")
    if not separator or len(parts) != 2:
        having = full_names(parts[-1])
        meant = f"; did you mean {' or '.join(having)}?" if having else ""
        raise ConfigError(f"{override!r}: an override has the form section.key=value, as in training.batch=32{meant}")
    section, key = parts
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    if isinstance(_keys().get(section, {}).get(key), str) and not isinstance(value, str):
        value = text.strip()  # A folder may be called 2015.
    return section, key, value


def name_of_today(name: str) -> str:
    """Returns the name "section.key" that a key has today, which may have had another one."""
    section, _, key = name.partition(".")
    return f"{section}.{RENAMED.get(section, {}).get(key, key)}"


def full_names(key: str) -> list[str]:
    """Returns the names "section.key" of a key, in all sections that have it."""
    return [f"{section}.{key}" for section, keys in _keys().items() if key in keys]


def _keys() -> dict[str, dict[str, Any]]:
    """The keys of every section with their defaults; those of a component are of the default one."""
    return {section.name: vars(section.default) for section in fields(Config)}


def _override(tree: dict[str, Any], section: str, key: str, value: Any) -> None:  # noqa: ANN401, as TOML has it
    values = tree.setdefault(section, {})
    if not isinstance(values, dict):
        raise ConfigError(f"{section}: must be a section of keys and values, got {values!r}")
    if key == "name" and section in REGISTRIES and values.get("name", _default_name(section)) != value:
        values.clear()  # The keys of another component do not carry over.
    values[key] = value

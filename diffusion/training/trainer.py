"""The training loop, its state, and what happens around it. Only this room imports accelerate, for devices, processes
and trackers.

A run is a function of its configuration and data: the examples, crops, noise levels and noise of a step depend on
(seed, step) alone, so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from diffusion import checkpoint, distributed, model, progress
from diffusion.compilation import compile_blocks, obstacle
from diffusion.config import Config, TrainingConfig
from diffusion.data import Dataset
from diffusion.data.images.mask_law import read_masks
from diffusion.data.observing import Given
from diffusion.errors import InputError
from diffusion.files import sync
from diffusion.interrupt import Interrupt
from diffusion.memory import tune_malloc
from diffusion.model import Model, transfer
from diffusion.objectives import Batch
from diffusion.precision import in_precision, name_of, network_dtype
from diffusion.progress import Bar
from diffusion.randomness import drawing_threads
from diffusion.reporting import requests
from diffusion.reporting.names import INCIDENTS
from diffusion.reporting.requests import REQUESTS, Request
from diffusion.training import incidents, machine, metrics, objective, sharding, state
from diffusion.training.adaptive import AdaptiveObjective
from diffusion.training.batches import BatchMaker
from diffusion.training.beginning import open_init
from diffusion.training.ema import PowerEMA
from diffusion.training.generalization import Generalization
from diffusion.training.gradient import Gradient
from diffusion.training.metrics import METRICS, Tracker
from diffusion.training.monitor import LossByLogSNR, Monitor
from diffusion.training.nonfinite import LIMIT, NonFiniteGuard
from diffusion.training.patience import Patience
from diffusion.training.prefetch import Prefetch
from diffusion.training.report import Reporter, Validation
from diffusion.training.scaler import LossScaler

# Seconds after which a run without any picture makes its first one.
FIRST_SAMPLES_S = 30.0
# The share of the time spent waiting for examples beyond which the run says so.
WAITING = 0.3
# The guard looks for skipped steps before any of these, so that nothing is saved or shown of them.
GUARDED = ("log", "checkpoint", "samples", "evaluate")


@dataclass(frozen=True)
class Outcome:
    """The end of a run: the model with averaged weights, and the exit code, 0 unless a signal ended it."""

    model: Model
    exit_code: int


class Trainer:
    """Trains the backbone of one experiment in one run folder, from its newest checkpoint if it has any.

    `holes` are those that the training examples had before they were completed, if they were.
    """

    def __init__(
        self, config: Config, train: Dataset, held_out: Dataset, run: Path, holes: Given | None = None
    ) -> None:
        self.config, self.run, self.holes = config, run, holes
        self.accelerator = accelerator(config, run)
        self.dtype = network_dtype(config.training.precision, self.accelerator.device)
        self.sharded = sharding.requested()
        check_options(config.training)
        self._build_network(train)
        at_once = self._build_state()
        self._build_step(train, at_once)
        self.reporter = Reporter(config, run, train, held_out, self.say, remembers=holes is None)
        self.tracker = Tracker(self.accelerator, config.report.tracker, self.note)
        self.guard = NonFiniteGuard(self.maker, self.say, self.note)
        self.went_back, self.waited_much = False, False
        self.requests = requests.request_of(run)
        self.asked: Request | None = None

    def _build_network(self, train: Dataset) -> None:
        """Makes the network, its objective, its average and its optimizer, as they are before the first step."""
        options, device = self.config.training, self.accelerator.device
        torch.manual_seed(options.seed)
        self.network = model.build(self.config, train.spec).to(device)
        if options.init and not checkpoint.folders(self.run):
            for line in transfer.transfer(open_init(self.config), self.network, train.spec):
                self.say(f"training.init: {line}")
        self.objective = objective.build(self.config, train.spec, self.network, device)
        if not self.sharded:  # Sharding needs contiguous tensors.
            self.network.to(memory_format=torch.channels_last)
        self.ema = PowerEMA(self.network, options.ema)
        setting = False if options.deterministic and options.compile == "auto" else options.compile
        self.compiled = compile_blocks(self.network, setting, device, "training.compile", self.say, dynamic=False)
        if self.sharded:
            sharding.shard(self.network, device, self.dtype)
            sharding.shard(self.ema.network, device, torch.float32)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=options.lr,
            betas=(0.9, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )

    def _build_state(self) -> int | None:
        """Makes the rest of the state, and loads all of it from the newest checkpoint.

        Returns the number of examples that the device took at once by then, None if there is no record of it.
        """
        schedule = self.config.schedule
        self.monitor = Monitor(LossByLogSNR(schedule.log_snr_min, schedule.log_snr_max))
        self.generalization = Generalization()
        self.stateful: dict[str, state.Stateful] = {"monitor": self.monitor, "generalization": self.generalization}
        if isinstance(self.objective, AdaptiveObjective):
            self.stateful["adaptive"] = self.objective
        self.patience = Patience(self.config.training.patience)
        if self.patience.limit:
            self.stateful["patience"] = self.patience
        self.scaler = LossScaler(self.accelerator.device) if self.dtype == torch.float16 else None
        if self.scaler is not None:
            self.stateful["scaler"] = self.scaler
        self.step, at_once = self._load_state()
        if distributed.largest(self.step) != -distributed.largest(-self.step):
            raise InputError(
                f"{self.run}: not every process sees its checkpoints; put it on a disk that all machines share"
            )
        return at_once

    def _build_step(self, train: Dataset, at_once: int | None) -> None:
        """Makes the parts of a step: the batches, the prepared network, and the gradient."""
        options, observed = self.config.training, self.config.observed
        self.network.gradient_checkpointing = options.gradient_checkpointing
        # To a sharded network accelerate adds nothing.
        self.prepared: nn.Module = self.accelerator.prepare_model(self.network, evaluation_mode=self.sharded)
        self.denoiser = model.assemble(self.config, in_precision(self.prepared, self.dtype))
        self.maker = BatchMaker(
            train,
            options.batch,
            options.seed,
            self.config.data.flip,
            options.label_dropout,
            options.low_discrepancy,
            distributed.rank(),
            distributed.count(),
            self.accelerator.device,
            drawing_threads(self.accelerator.device),
            # A student has the inputs of its teacher's network, but learns to sample alone.
            observed if self.config.observes and not self.config.distillation.teacher else None,
            self.holes,
            Given(read_masks(observed.folder, train.spec.shape[1:])) if observed.folder else None,
            self.config.condition if self.config.conditioned and not self.config.distillation.teacher else None,
        )
        share = options.batch // distributed.count()
        self.gradient = Gradient(
            self.accelerator,
            self.prepared,
            self.denoiser,
            self.objective,
            share,
            min(share // options.accumulate, at_once or share),
            options.seed,
            self.note,
            sharded=self.sharded,
            scaler=self.scaler,
        )

    def say(self, text: str) -> None:
        """Prints a line above the progress bar, once for all processes."""
        if self.accelerator.is_main_process:
            progress.say(text)

    def note(self, text: str) -> None:
        """Prints a line about what went wrong, and notes it in the run folder."""
        self.say(text)
        if self.accelerator.is_main_process:
            incidents.note(self.run, self.step, text)

    @property
    def model(self) -> Model:
        """The model with the averaged weights of this step.

        A sharded network is gathered into a whole one, for which all processes must ask together.
        """
        spec, network = self.maker.dataset.spec, self.ema.network
        if self.sharded:
            network = model.build(self.config, spec).to(self.accelerator.device).eval().requires_grad_(False)
            network.load_state_dict(dict(sharding.full_tensors(self.ema.network.state_dict())))
        return Model(model.assemble(self.config, network), spec, self.config, self.step, self.accelerator.device)

    def train(self, interrupt: Interrupt | None = None) -> Outcome:
        """Runs to the last step, until the held-out bound does not improve any more, or until a signal, then saves.

        A page may ask for a picture of samples, or for the end (`reporting.requests`).

        Pictures and evaluations of a step are made after it is saved, so that a signal may end them.
        """
        self.say(self._headline())
        if self.accelerator.is_main_process:
            machine.record(self.run, self.accelerator.device, self.dtype)
        self.tracker.open(self.run.name, self.config)
        self.catch_up()
        steps, start, stop = self.config.training.steps, time.perf_counter(), 0
        prefetch = Prefetch(self.maker.on_host, steps, self.accelerator.device)
        sampled = bool(distributed.largest(self.reporter.has_samples))
        interrupt = interrupt or Interrupt()
        with prefetch, interrupt.deferred(), self._progress_bar() as bar:
            while self.step < steps and not stop and not self.patience.over:
                # Batch. On an accelerator the host makes that of the next step while the device trains on this one.
                batch = self.maker.on_device(prefetch(self.step))

                # Gradient, optimizer, average.
                norm = self.update(batch)
                bar.update()

                # Steps that were skipped, and numbers.
                if self._due(*GUARDED) and self._goes_back():
                    bar.n = self.step
                    continue
                if self._due("log"):
                    self._log(norm, prefetch.waited, bar)

                # Checkpoint. All processes sample together, or none: their clocks differ.
                stop = self._signal(interrupt)
                early = not sampled and bool(distributed.largest(time.perf_counter() - start > FIRST_SAMPLES_S))
                samples = early or self.asked == "sample" or self._due("samples")
                evaluation = self._due("evaluate")
                if stop or samples or evaluation or self._due("checkpoint"):
                    self.save()

                # Pictures and evaluation.
                if not stop and (samples or evaluation):
                    with interrupt.immediate():
                        self._show(samples=samples, evaluation=evaluation)
                    sampled |= samples
            if self.patience.over and self.step < steps and not stop:
                self._end_early(interrupt)
        if stop:
            self.reporter.page("stopped")
            who = ", as a page asked" if self.asked == "stop" else ""
            self.say(f"stopped at step {self.step}{who}, saved in {self.run}; the same command goes on from here")
        elif remembered := self.generalization.end():
            self.say(remembered)
        return Outcome(self.model, 128 + stop if stop else 0)

    def _end_early(self, interrupt: Interrupt) -> None:
        """Says why a run ends before its last step, saves that it does, and makes the picture of a last step."""
        self.say(self.patience.end(metrics.bounds(self.run / METRICS), self.generalization.opened))
        self.save()
        with interrupt.immediate():
            self.catch_up()

    def update(self, batch: Batch) -> Tensor:
        """Takes one optimizer step on this process's part of the batch; returns the norm of the gradient, ().

        Where the norm is not finite, the optimizer leaves weights and moments as they are.
        """
        options = self.config.training
        loss, parts = self.gradient(batch, self.step)
        for log_snr, losses in parts:
            self.monitor.add(log_snr, losses)
        norm: Tensor = self.accelerator.clip_grad_norm_(self.network.parameters(), options.clip)
        norm = norm.full_tensor() if sharding.is_sharded(norm) else norm
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        skip = self.guard.add(norm, loss, None if self.scaler is None else self.scaler.scale)
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.scaler is not None:
            self.scaler.update(skip)
        self.optimizer.zero_grad()
        self.network.project_()
        self.step += 1
        self.ema.update(self.network, self.step)
        if isinstance(self.objective, AdaptiveObjective):
            self.objective.advance(self.step)
        return norm

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step: a linear warm-up, then a constant, then a half cosine to zero over the
        last `decay` of the steps.
        """
        options = self.config.training
        warm = min(1.0, (step + 1) / (options.warmup + 1))
        left = (options.steps - step) / max(1.0, options.decay * options.steps)
        return options.lr * warm * (1 - math.cos(math.pi * min(1.0, left))) / 2

    def save(self) -> None:
        """Writes a checkpoint from the main process, and removes those that need not be kept."""
        parts = state.state_dict(
            self.config,
            self.maker.dataset.spec,
            self.step,
            self.network,
            self.ema.network,
            self.optimizer,
            self.stateful,
            self.gradient.at_once,
        )
        if self.accelerator.is_main_process:
            report, rows = self.config.report, self.run / METRICS
            # Rows up to this step will not be written again.
            if rows.exists():
                sync(rows)
            steps = [self.step, *(checkpoint.step_of(folder) for folder in checkpoint.folders(self.run))]
            best = metrics.best(rows, steps) if report.keep_best else None
            retention = checkpoint.Retention(report.keep, report.keep_every, best)
            checkpoint.write(self.run, self.step, parts, keep=retention)
        distributed.barrier()

    def catch_up(self) -> None:
        """Makes the pictures and numbers of the step that a run goes on from, if it ended after saving that step and
        before showing it. What a run begins from is measured too, before the first step, unless its weights are new.

        A validation that the checkpoint does not know of is made again, by which the run may end. After the last step
        no validation will be compared with it.
        """
        if self.step == 0 and (self.holes or not self.config.training.init):
            return
        judged = not self.patience.limit or self.patience.judged == self.step
        if self.config.report.training_images and not self.holes and self.step < self.config.training.steps:
            judged &= self.generalization.judged == self.step
        unknown = self.step not in metrics.bounds(self.run / METRICS) or not judged
        samples = self.step > 0 and self._due("samples") and not self.reporter.has_shown(self.step)
        evaluation = self._due("evaluate") and self.reporter.measures and unknown
        samples, evaluation = (bool(distributed.largest(each)) for each in (samples, evaluation))
        if samples or evaluation:
            self._show(samples=samples, evaluation=evaluation)

    def _load_state(self) -> tuple[int, int | None]:
        """Loads the newest checkpoint, and drops the logged rows of later steps.

        Returns the step and the number of examples that were taken at once by then (`state.load_state`).
        """
        said: list[str] = []
        found = state.load_state(self.run, self.network, self.ema.network, self.optimizer, self.stateful, said.append)
        for line in said:
            self.say(line)
        if self.accelerator.is_main_process:
            metrics.truncate_after(self.run / METRICS, found[0])
            metrics.truncate_after(self.run / INCIDENTS, found[0])
            for damaged in said[:-1]:  # The last line says where the run goes on.
                incidents.note(self.run, found[0], damaged)
        return found

    def _due(self, *names: str) -> bool:
        """Whether any of these is due after this step, by the options of the report; all are after the last one."""
        last = self.step == self.config.training.steps or self.patience.over
        return last or any(self.step % getattr(self.config.report, name) == 0 for name in names)

    def _goes_back(self) -> bool:
        """Names the skipped steps; loads the newest checkpoint, once, if too many in a row were skipped."""
        self.guard.look(self.step)
        if self.guard.in_a_row < LIMIT:
            return False
        if self.went_back or not checkpoint.folders(self.run):
            rate, schedule = self.learning_rate(self.step - 1), self.config.schedule
            raise self.guard.give_up(
                self.run, self.step, rate, lambda batch: self.objective.log_snr(batch.u, schedule, batch.observed)
            )
        back = f"step {self.step}: {self.guard.in_a_row} steps in a row were skipped; going back, once"
        self.say(back)
        self.went_back, self.guard.in_a_row = True, 0
        self.step, _ = self._load_state()
        if self.accelerator.is_main_process:
            incidents.note(self.run, self.step, back)
        self.catch_up()
        return True

    def _log(self, norm: Tensor, waited: float, bar: Bar) -> None:
        numbers = self.monitor.collect(waited)
        numbers |= {"lr": self.learning_rate(self.step - 1), "grad_norm": float(norm)}
        if self.scaler is not None:
            numbers |= {"loss_scale": float(self.scaler.scale), "overflows": float(self.scaler.overflows)}
        bar.set_postfix_str(
            f"loss {numbers['loss']:.4f}, {numbers['images_per_s']:.0f} images/s, data wait {numbers['data_wait']:.0%}"
        )
        if numbers["data_wait"] > WAITING and not self.waited_much:
            self.waited_much = True
            self.say(
                f"step {self.step}: {numbers['data_wait']:.0%} of the time goes to waiting for examples and their "
                "noise, which the CPU makes; put the examples, or the cache of a folder (DIFFUSION_CACHE), on a local "
                "disk, and see whether other programs use it, or the cores of the CPU"
            )
        self._record({name: value for name, value in numbers.items() if math.isfinite(value)})

    def _show(self, *, samples: bool, evaluation: bool) -> None:
        """Makes a picture of samples, an evaluation on held-out examples with its plots, or both."""
        average = self.model
        if samples:
            self.reporter.samples(average)
            self.tracker.pictures({"samples": self.reporter.picture(self.step)}, self.step)
        if evaluation:
            known = self.step in metrics.bounds(self.run / METRICS)
            found = self.reporter.validation(average, self.monitor.by_log_snr)
            opens = found.gap is not None and self.generalization.judge(self.step, found.gap)
            self._record({} if known else {**found.numbers, **self.generalization.numbers})
            if opens:
                self._say_that_it_remembers()
            self._judge(found)
        self.reporter.page()

    def _say_that_it_remembers(self) -> None:
        """Says it once, also where a run that goes on makes a validation again."""
        line = self.generalization.said()
        if self.accelerator.is_main_process and incidents.note_once(self.run, self.step, line):
            self.say(line)

    def _judge(self, found: Validation) -> None:
        """Lets a validation decide whether the run has improved, where it may end by that, once for each step."""
        if not (self.patience.limit and found.values) or self.patience.judged == self.step:
            return
        better = self.patience.judge(self.step, found.values, self.reporter.validated)
        if better is not None and self.patience.waited:
            self.say(self.patience.said(better))

    def _record(self, numbers: dict[str, float]) -> None:
        if not numbers:
            return
        self.tracker.log(numbers, self.step)
        if self.accelerator.is_main_process:
            metrics.append(self.run / METRICS, {"step": self.step, **numbers})

    def _signal(self, interrupt: Interrupt) -> int:
        """Returns the signal that any process received, 0 for none, and takes what a page asks for.

        The answer is the same on all processes. To be asked to stop is to receive SIGTERM.
        """
        words: tuple[Request | None, ...] = (None, *REQUESTS)
        asked = words.index(requests.take(self.requests)) if self.accelerator.is_main_process else 0
        # Only the main process takes requests, so that where there is no signal the largest number has what it took.
        received, asked = divmod(distributed.largest((interrupt.signal or 0) * len(words) + asked), len(words))
        self.asked = words[asked]
        return received or (signal.SIGTERM if self.asked == "stop" else 0)

    def _progress_bar(self) -> Bar:
        show, steps = self.accelerator.is_main_process, self.config.training.steps
        return progress.bar(steps, "training", "step", show=show, done=self.step, report=True)

    def _headline(self) -> str:
        parameters, device = sum(p.numel() for p in self.network.parameters()), self.accelerator.device
        compiled = ", compiled" if self.compiled else ""
        if self.config.training.compile == "auto" and device.type == "cuda" and not compiled:
            compiled = f", not compiled ({obstacle(device) or 'deterministic'})"
        return (
            f"training {parameters / 1e6:.2f} M parameters on {len(self.maker.dataset):,} examples: "
            f"{self.accelerator.num_processes} x {device.type}, {name_of(self.dtype)}{compiled}"
            f"{', sharded' if self.sharded else ''}, from step {self.step}"
        )


def join() -> torch.device:
    """Joins the processes that a launcher started and returns the device of this one, by which accelerate then goes.

    Raises InputError for a device that this process cannot have.
    """
    device = distributed.take_device()
    # Without `cpu`, accelerate takes each of several processes on CPUs for a run of its own. On its own it would take
    # the current GPU without its number, and a GPU where the CPU was asked for by `--device`.
    PartialState(cpu=device.type == "cpu").device = device
    return device


def accelerator(config: Config, run: Path) -> Accelerator:
    """Returns accelerate's view of the device, the processes and the tracker of a run."""
    device = join()
    if device.type == "cpu":
        tune_malloc()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # The network is given its autocast by the same function as in sampling.
        log_with=config.report.tracker or None,
        project_dir=run,
        # Buffers are constants; broadcasting them would block where a process begins a step again.
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
    )


def check_options(options: TrainingConfig) -> None:
    """Raises InputError for options that do not suit the processes of this run."""
    parts = distributed.count() * options.accumulate
    if options.batch % parts:
        raise InputError(
            f"training.batch: must be a multiple of processes x accumulate = {distributed.count()} x "
            f"{options.accumulate}, got {options.batch}"
        )

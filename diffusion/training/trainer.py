"""Training: the loop, its state, and what happens around it. The only room that imports accelerate, for devices,
processes and bf16.

A run is a function of its configuration and data: the examples, crops, noise levels and noise of a step depend on
(seed, step) alone, so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import checkpoint, model, processes
from diffusion.config import Config, TrainingConfig, to_dict
from diffusion.data import Dataset
from diffusion.errors import InputError
from diffusion.files import sync
from diffusion.memory import keep_freed
from diffusion.model import Model
from diffusion.precision import use_bf16
from diffusion.randomness import example_seed
from diffusion.training import monitor, sharding, state, teacher
from diffusion.training.batches import Batch, BatchMaker
from diffusion.training.ema import PowerEMA
from diffusion.training.guard import LIMIT, Guard
from diffusion.training.interrupt import Interrupt
from diffusion.training.levels import MeasuredObjective
from diffusion.training.report import Reporter

FIRST_SAMPLES_S = 30.0
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the model with averaged weights, and the exit code, 0 unless a signal ended it."""

    model: Model
    exit_code: int


class Trainer:
    """Trains the backbone of one experiment in one run folder, from its newest checkpoint if it has any."""

    def __init__(self, config: Config, train: Dataset, held_out: Dataset, run: Path) -> None:
        options = config.training
        self.config, self.run = config, run
        device = processes.device()
        if device.type == "cpu":
            keep_freed()
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if use_bf16(options.precision, device) else "no",
            log_with=config.report.tracker or None,
            project_dir=run,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self.sharded = sharding.requested()
        check(options, self.sharded)
        torch.manual_seed(options.seed)
        network = model.build(config, train.spec).to(self.accelerator.device)
        self.objective = teacher.objective(config, train.spec, network, self.accelerator.device)
        if not self.sharded:  # What is sharded must be contiguous.
            network.to(memory_format=torch.channels_last)
        self.ema = PowerEMA(network, options.ema)
        if self.sharded:
            sharding.shard(network, self.accelerator.device)
            sharding.shard(self.ema.network, self.accelerator.device)
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=options.lr,
            betas=(0.9, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.network = network
        self.step = self._restored()
        if processes.largest(self.step) != -processes.largest(-self.step):
            raise InputError(f"{run}: not every process sees its checkpoints; put it on a disk that all machines share")
        network.gradient_checkpointing = options.gradient_checkpointing
        if options.compile:
            network.compile_blocks()
        # For a sharded network accelerate adds the autocast and nothing else.
        self.prepared = self.accelerator.prepare_model(network, evaluation_mode=self.sharded)
        self.denoiser = model.assemble(config, self.prepared)
        self.maker = BatchMaker(
            train,
            options.batch,
            options.seed,
            config.data.flip,
            options.label_dropout,
            options.low_discrepancy,
            processes.rank(),
            processes.count(),
            self.accelerator.device,
        )
        schedule = config.schedule
        self.monitor = monitor.Monitor(monitor.LossByLevel(schedule.log_snr_min, schedule.log_snr_max))
        self.reporter = Reporter(config, run, train, held_out, self.say)
        self.guard, self.went_back = Guard(self.maker, self.say), False

    def _restored(self) -> int:
        """The step of the newest checkpoint, whose state everything then has; rows of later steps are dropped."""
        step = state.restore(
            self.run, self.network, self.ema.network, self.optimizer, self.objective, self.say
        )
        if self.accelerator.is_main_process:
            monitor.truncate_after(self.run / METRICS, step)
        return step

    def say(self, text: str) -> None:
        """Prints a line above the progress bar, once for all processes."""
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stdout)

    @property
    def model(self) -> Model:
        """The model with averaged weights as it stands; of sharded ones a whole copy, for which all processes must
        ask.
        """
        spec, network = self.maker.dataset.spec, self.ema.network
        if self.sharded:
            network = model.build(self.config, spec).to(self.accelerator.device).eval().requires_grad_(False)
            network.load_state_dict(dict(sharding.whole(self.ema.network.state_dict())))
        return Model(model.assemble(self.config, network), spec, self.config, self.step, self.accelerator.device)

    def train(self) -> Outcome:
        """Runs to the last step or until a signal, then saves."""
        self.say(self._headline())
        self._open_tracker()
        steps, start, waited = self.config.training.steps, time.perf_counter(), 0.0
        bar = tqdm(
            total=steps,
            initial=self.step,
            unit="step",
            mininterval=0.5,
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )
        sampled = bool(processes.largest(self.reporter.has_samples))
        with Interrupt() as interrupt, bar:
            while self.step < steps:
                # Made here and not in a thread: it costs a hundredth of a step, and a second team of compute threads
                # takes several times that from the step.
                began = time.perf_counter()
                batch = self.maker(self.step)
                waited += time.perf_counter() - began
                norm = self.update(batch)
                bar.update()
                if self._due("log", "checkpoint") and self._goes_back():
                    bar.n = self.step
                    continue
                if self._due("log"):
                    self._log(norm, waited, bar)
                # All processes sample together, or none: their clocks differ.
                early = not sampled and bool(processes.largest(time.perf_counter() - start > FIRST_SAMPLES_S))
                sampled |= self._show(early=early)
                stop = self._signal(interrupt)
                if stop or self._due("checkpoint"):
                    self.save()
                if stop:
                    break
        if self.step < steps:
            self.say(f"stopped at step {self.step}, saved in {self.run}; the same command goes on from here")
            return Outcome(self.model, 128 + stop)
        return Outcome(self.model, 0)

    def update(self, batch: Batch) -> Tensor:
        """One optimizer step on this process's part of the batch; returns the norm of the gradient. Where that is not
        finite, the optimizer leaves weights and moments as they are.
        """
        options = self.config.training
        torch.manual_seed(example_seed(options.seed, self.step, self.accelerator.process_index))
        parts, total = options.accumulate, torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            x, u, noise, label = (
                None if v is None else v.chunk(parts)[part] for v in (batch.x, batch.u, batch.noise, batch.label)
            )
            assert x is not None and u is not None and noise is not None
            # Processes exchange gradients once per step, with the last part; those of sharded weights with every part,
            # as a whole gradient may not fit.
            with nullcontext() if part == parts - 1 or self.sharded else self.accelerator.no_sync(self.prepared):
                losses = self.objective.loss(self.denoiser, x, u, noise, label)
                loss = losses.mean() / parts
                # A loss that is not finite makes the gradient so, of all processes.
                self.accelerator.backward(loss * torch.where(loss.detach().isfinite(), 1.0, math.nan))
            total += loss.detach()
            self.monitor.add(self.objective.log_snr(u, self.config.schedule), losses)
        norm: Tensor = self.accelerator.clip_grad_norm_(self.network.parameters(), options.clip)
        norm = norm.full_tensor() if sharding.is_sharded(norm) else norm
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimizer.found_inf = self.guard.add(norm, total)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.network.project_()
        self.step += 1
        self.ema.update(self.network, self.step)
        if isinstance(self.objective, MeasuredObjective):
            self.objective.advance(self.step)
        return norm

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant, then a half cosine to zero over the last `decay` of the steps."""
        options = self.config.training
        warm = min(1.0, (step + 1) / (options.warmup + 1))
        left = (options.steps - step) / max(1.0, options.decay * options.steps)
        return options.lr * warm * (1 - math.cos(math.pi * min(1.0, left))) / 2

    def _log(self, norm: Tensor, waited: float, bar: tqdm) -> None:
        numbers = self.monitor.collect(self.accelerator.num_processes, waited)
        numbers |= {"lr": self.learning_rate(self.step - 1), "grad_norm": float(norm)}
        local = torch.tensor(numbers["loss"], device=self.accelerator.device)
        numbers["loss"] = float(self.accelerator.reduce(local, "mean"))
        bar.set_postfix_str(
            f"loss {numbers['loss']:.4f}, {numbers['images_per_s']:.0f} images/s, data wait {numbers['data_wait']:.0%}"
        )
        self._record({name: value for name, value in numbers.items() if math.isfinite(value)})

    def _due(self, *names: str) -> bool:
        """Whether the step is one of those after which one of these is done, by the report's options, or the last."""
        last = self.step == self.config.training.steps
        return last or any(self.step % getattr(self.config.report, name) == 0 for name in names)

    def _goes_back(self) -> bool:
        """Names what was skipped; goes back to the newest checkpoint, once, if it was too much in a row."""
        self.guard.look(self.step)
        if self.guard.in_a_row < LIMIT:
            return False
        if self.went_back or not checkpoint.folders(self.run):
            rate, schedule = self.learning_rate(self.step - 1), self.config.schedule
            raise self.guard.give_up(self.run, self.step, rate, lambda u: self.objective.log_snr(u, schedule))
        self.say(f"step {self.step}: {self.guard.in_a_row} steps in a row were skipped; going back, once")
        self.monitor.forget()
        self.went_back, self.guard.in_a_row = True, 0
        self.step = self._restored()
        return True

    def _show(self, *, early: bool) -> bool:
        """Sample grids, validation and plots when they are due; whether a grid was made."""
        samples, evaluation = early or self._due("samples"), self._due("evaluate")
        if not (samples or evaluation):
            return False
        average = self.model
        if samples:
            self.reporter.samples(average)
        if evaluation:
            self._record(self.reporter.validation(average, self.monitor.levels))
        return samples

    def _record(self, numbers: dict[str, float]) -> None:
        if not numbers:
            return
        try:
            self.accelerator.log(numbers, step=self.step)
        except Exception as error:  # a tracker's own, of any type; the numbers are in the run folder too
            self.say(f"report.tracker: {self.config.report.tracker} failed and gets no more numbers: {error!r}")
            self.accelerator.trackers = []
        if self.accelerator.is_main_process:
            monitor.append(self.run / METRICS, {"step": self.step, **numbers})

    def _signal(self, interrupt: Interrupt) -> int:
        """The signal that any process received, 0 for none; all of them get the same answer."""
        return processes.largest(interrupt.signal or 0)

    def save(self) -> None:
        """Writes a checkpoint from the main process, and removes those that need not be kept."""
        spec, average = self.maker.dataset.spec, self.ema.network
        parts = state.parts(self.config, spec, self.step, self.network, average, self.optimizer, self.objective)
        if self.accelerator.is_main_process:
            report, rows = self.config.report, self.run / METRICS
            # Rows up to this step will not be written again.
            if rows.exists():
                sync(rows)
            steps = [self.step, *(checkpoint.step_of(folder) for folder in checkpoint.folders(self.run))]
            best = monitor.best(rows, steps) if report.keep_best else None
            checkpoint.write(self.run, self.step, parts, keep=checkpoint.Keep(report.keep, report.keep_every, best))
        self.accelerator.wait_for_everyone()

    def _open_tracker(self) -> None:
        name = self.config.report.tracker
        if not name:
            return
        if not self.accelerator.log_with:
            raise InputError(f"report.tracker: {name} is not installed; install it, or leave the tracker out")
        flat = {f"{s}.{k}": str(v) for s, values in to_dict(self.config).items() for k, v in values.items()}
        self.accelerator.init_trackers(self.run.name, config=flat)

    def _headline(self) -> str:
        parameters = sum(p.numel() for p in self.network.parameters())
        precision = "bf16" if self.accelerator.mixed_precision == "bf16" else "fp32"
        return (
            f"training {parameters / 1e6:.2f} M parameters on {len(self.maker.dataset):,} examples: "
            f"{self.accelerator.num_processes} x {self.accelerator.device.type}, {precision}"
            f"{', sharded' if self.sharded else ''}, from step {self.step}"
        )


def check(options: TrainingConfig, sharded: bool) -> None:
    """Raises InputError for options that do not suit the processes of this run."""
    parts = processes.count() * options.accumulate
    if options.batch % parts:
        raise InputError(
            f"training.batch: must be a multiple of processes x accumulate = {processes.count()} x "
            f"{options.accumulate}, got {options.batch}"
        )
    if sharded and options.compile:
        raise InputError("training.compile: must be false for a sharded network (FSDP2), got true")

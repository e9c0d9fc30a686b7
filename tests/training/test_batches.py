"""Batches: a function of seed and step alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion.conditioning import Condition
from diffusion.data import Dataset, DataSpec, SampleStream, augment, crops_and_flips
from diffusion.data.hashing import uniform
from diffusion.data.observing import Given, Observing
from diffusion.levels import UNSEEN
from diffusion.objectives import Batch
from diffusion.randomness import Stream, example_seed
from diffusion.training import batches
from diffusion.training.batches import BatchMaker
from tests.pretended import pretended


def images(count: int = 23, margin: int = 0) -> Dataset:
    values = np.random.default_rng(0).integers(0, 256, (count, 3, 4 + 2 * margin, 6 + 2 * margin), dtype=np.uint8)
    spec = DataSpec((3, 4, 6), 256, ("a", "b"), mean=100.0, std=50.0)
    return Dataset(values, spec, np.arange(count) % 2, tuple(map(str, range(count))), margin)


def deep() -> Dataset:
    values = np.random.default_rng(0).integers(0, 2**16, (23, 3, 4, 6), dtype=np.uint16)
    return replace(images(), values=values, spec=replace(images().spec, levels=2**16))


def maker(dataset: Dataset | None = None, **changes: object) -> BatchMaker:
    made = BatchMaker(dataset or images(), 8, seed=3, flip=True, label_dropout=0.3, low_discrepancy=True)
    return replace(made, **changes)


def fields(batch: Batch) -> list[torch.Tensor]:
    assert batch.label is not None
    return [batch.x, batch.u, batch.noise, batch.label]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(v, w) for v, w in zip(fields(a), fields(b), strict=True))


@pytest.mark.parametrize("low_discrepancy", [True, False])
@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_processes_make_up_the_batch_of_one(processes: int, margin: int, low_discrepancy: bool) -> None:
    one = maker(images(margin=margin), low_discrepancy=low_discrepancy)
    for step in (0, 1, 7):
        parts = [fields(replace(one, rank=rank, processes=processes)(step)) for rank in range(processes)]
        joined = [torch.cat(part) for part in zip(*parts, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(joined, fields(one(step)), strict=True))


def test_a_batch_is_what_the_parts_of_the_package_make_of_it_one_by_one() -> None:
    dataset = images(margin=2)
    made = maker(dataset)
    for step in range(4):
        numbers = range(8 * step, 8 * step + 8)
        order = SampleStream(23, example_seed(3, Stream.ORDER)).indices(8 * step, 8)
        values, label = dataset.batch(order)
        seeds = [example_seed(3, Stream.AUGMENT, number) for number in numbers]
        x = (augment(values, crops_and_flips(seeds, 2), flip=True, margin=2).float() - 100.0) / 50.0
        generators = [torch.Generator().manual_seed(example_seed(3, Stream.NOISE, number)) for number in numbers]
        noise = torch.stack([torch.randn(3, 4, 6, generator=generator) for generator in generators])
        batch = made(step)
        assert torch.equal(batch.x, x) and torch.equal(batch.noise, noise)
        assert label is not None and batch.label is not None
        assert ((batch.label == label) | (batch.label == -1)).all()


def test_values_are_augmented_and_encoded_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []

    def noted(values: torch.Tensor, draws: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: ANN401
        moved.append((values.device, values.dtype, draws.device))
        return values

    monkeypatch.setattr(batches, "augment", noted)
    meta = torch.device("meta")
    batch = maker(device=meta)(0)
    assert moved == [(meta, torch.uint8, meta)]
    assert [value.device.type for value in fields(batch)] == ["meta", "cpu", "meta", "meta"]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("margin", [0, 2])
def test_a_gpu_gets_the_same_batch_by_four_copies_of_which_cuda_waits_for_none(kind: str, margin: int) -> None:
    one = maker(images(margin=margin), rank=1, processes=2)
    with pretended(kind) as ledger:
        made = replace(one, device=ledger.device)(5)
        x, u, noise, label = fields(made)
        assert u.device.type == "cpu" and {part.device for part in (x, noise, label)} == {ledger.device}
    copies = ledger.queued if kind == "cuda" else ledger.waits
    assert copies.total() == 4 and (ledger.queued + ledger.waits).total() == 4, str(ledger)
    on_cpu = one(5)
    for a, b in zip((x, noise, label), (on_cpu.x, on_cpu.noise, on_cpu.label), strict=True):
        assert torch.equal(a.value, b)  # type: ignore[attr-defined]
    assert torch.equal(u, on_cpu.u)


@pytest.mark.parametrize("dataset", ["quantized", "deep", "points"])
def test_all_that_the_host_makes_for_cuda_is_pinned(dataset: str) -> None:
    made = maker({"quantized": images(), "deep": deep(), "points": points()}[dataset])
    with pretended("cuda") as ledger:
        host = replace(made, device=ledger.device).on_host(3)
        parts = [part for part in (host.values, host.draws, host.noise, host.label) if part is not None]
        assert all(part.is_pinned() for part in parts) and len(parts) == (2 if dataset == "points" else 4)
        assert ledger.kernels == 0
    plain = made.on_host(3)
    assert torch.equal(host.values, plain.values) and torch.equal(host.noise, plain.noise) and host.step == 3


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_the_host_starts_no_team_of_compute_threads() -> None:
    """A thread that makes batches has as many threads after it as before; an addition of as many values has more."""
    large = Dataset(np.zeros((64, 3, 64, 64), np.uint8), DataSpec((3, 64, 64), 256), None, tuple(map(str, range(64))))
    made, before = maker(large, batch=64), torch.get_num_threads()
    counts: dict[str, int] = {}

    def tasks() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def run() -> None:
        counts["before"] = tasks()
        host = made.on_host(0)
        counts["host"] = tasks()
        host.noise.add(1.0)
        counts["added"] = tasks()

    try:
        torch.set_num_threads(3)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert counts["host"] <= counts["before"] < counts["added"]


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    first = maker()
    for step in range(5):
        first(step)
    torch.manual_seed(1)
    assert same(first(5), maker()(5))


def test_seeds_and_steps_differ_in_everything() -> None:
    a, b, c = maker()(0), maker()(1), maker(seed=4)(0)
    for other in (b, c):
        assert not any(torch.equal(v, w) for v, w in zip(fields(a), fields(other), strict=True))


def test_an_epoch_shows_every_example_once() -> None:
    dataset = images(24)
    plain = maker(dataset, flip=False, label_dropout=0.0)
    seen = torch.cat([plain(step).x for step in range(3)])
    values = torch.from_numpy(np.asarray(dataset.values))
    order = [int((dataset.spec.encode(values) == x).flatten(1).all(1).nonzero()) for x in seen]
    assert sorted(order) == list(range(24)) and order != list(range(24))


def test_values_are_standardized_and_labels_go_with_them() -> None:
    dataset = images()
    batch = maker(dataset, flip=False, label_dropout=0.0)(4)
    values = torch.from_numpy(np.asarray(dataset.values))
    assert batch.label is not None
    for x, label in zip(batch.x, batch.label, strict=True):
        index = int((((values - 100.0) / 50.0) == x).flatten(1).all(1).nonzero())
        assert int(label) == index % 2


def test_about_half_of_the_examples_are_mirrored() -> None:
    dataset = images()
    plain, flipped = maker(dataset, flip=False), maker(dataset)
    pairs = [(a, b) for step in range(50) for a, b in zip(plain(step).x, flipped(step).x, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in pairs]
    assert all(m or torch.equal(a, b) for m, (a, b) in zip(mirrored, pairs, strict=True))
    assert 160 < sum(mirrored) < 240  # Four standard deviations of 400 tosses.


def test_noise_levels_are_evenly_spaced_in_every_batch_and_uniform_over_many() -> None:
    offsets = []
    for step in range(200):
        u = maker(batch=16)(step).u.sort().values
        torch.testing.assert_close(u.diff(), torch.full((15,), 1 / 16, dtype=torch.float64), atol=1e-12, rtol=0)
        assert u.dtype == torch.float64 and 0 <= u[0] < 1 / 16
        offsets.append(float(u[0]) * 16)
    empirical = np.sort(offsets)
    assert np.abs(empirical - (np.arange(200) + 0.5) / 200).max() < 0.115  # Kolmogorov-Smirnov at 1 %.


def test_noise_levels_without_low_discrepancy_are_independent_and_uniform() -> None:
    u = torch.cat([maker(low_discrepancy=False)(step).u for step in range(100)]).sort().values
    assert float((u - (torch.arange(800) + 0.5) / 800).abs().max()) < 0.058
    assert float(maker(low_discrepancy=False)(0).u.sort().values.diff().std()) > 0.02


def test_noise_is_standard_normal_and_of_no_relation_to_the_noise_levels() -> None:
    noise = torch.cat([maker()(step).noise for step in range(30)])
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.square().mean()) == pytest.approx(1, abs=6 / noise.numel() ** 0.5)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_share_of_labels_is_hidden(share: float) -> None:
    labels = torch.cat([fields(maker(label_dropout=share)(step))[3] for step in range(250)])
    hidden = float((labels == -1).double().mean())
    assert hidden == pytest.approx(share, abs=4 * (share * (1 - share) / 2000) ** 0.5)
    assert set(labels.tolist()) <= {-1, 0, 1}


def test_data_without_labels_have_none() -> None:
    dataset = images()
    dataset = replace(dataset, labels=None, spec=replace(dataset.spec, classes=()))
    assert maker(dataset)(0).label is None


def points() -> Dataset:
    values = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    return Dataset(values, DataSpec((2,), None), None, tuple("abcdefghij"))


def test_the_noise_of_points_is_a_function_of_seed_and_number() -> None:
    one = maker(points())
    noise = torch.cat([one(step).noise for step in range(500)])
    assert noise.shape == (4000, 2) and len(noise.unique()) == 8000
    parts = [replace(one, rank=rank, processes=4)(5).noise for rank in range(4)]
    assert torch.equal(torch.cat(parts), noise[40:48])
    assert float((maker(points(), seed=4)(0).noise - noise[:8]).abs().min()) > 0
    assert noise[0].tolist() == pytest.approx([-0.1868917, -0.3463602], abs=1e-6)
    quantiles = torch.special.ndtr(noise.double().flatten().sort().values)
    assert float((quantiles - (torch.arange(8000) + 0.5) / 8000).abs().max()) < 1.63 / 8000**0.5
    assert abs(float(torch.corrcoef(noise.mT)[0, 1])) < 4 / 4000**0.5


def test_points_pass_through_as_they_are() -> None:
    values = points().values
    x = maker(points())(0).x
    assert x.shape == (8, 2) and all((torch.from_numpy(np.asarray(values)) == row).all(1).any() for row in x)


def test_what_is_observed_of_an_example_is_its_own() -> None:
    """Levels depend on the seed and the number of an example alone, and other draws do not depend on them."""
    one = maker(observing=Observing(share=0.7))
    plain, batch = maker()(3), one(3)
    assert plain.relative is None and same(plain, batch)
    assert batch.relative is not None and batch.relative.shape == (8, 1, 4, 6)
    expected = [Observing(share=0.7)((4, 6), example_seed(3, Stream.OBSERVED, number)) for number in range(24, 32)]
    assert torch.equal(batch.relative[:, 0], torch.from_numpy(np.stack(expected)))
    assert batch.observed is not None and batch.observed.tolist() == [bool((levels < 1).any()) for levels in expected]
    parts = [replace(one, rank=rank, processes=2)(3).relative for rank in range(2)]
    assert all(part is not None for part in parts)
    assert torch.equal(torch.cat([part for part in parts if part is not None]), batch.relative)


@pytest.mark.parametrize("margin", [0, 2])
def test_what_is_beside_the_values_is_cropped_and_flipped_with_them(margin: int) -> None:
    dataset = images(margin=margin)
    assert isinstance(dataset.values, np.ndarray)
    seen = (dataset.values[:, :1] < 128).astype(np.uint8)
    batch = maker(replace(dataset, seen=seen, condition=dataset.values), condition=Condition(dropout=1e-9))(0)
    plain = maker(dataset)(0)
    assert batch.condition is not None and torch.equal(batch.condition[:, :3], plain.x)
    assert bool((batch.condition[:, 3] == 1).all())
    hidden = plain.x[:, :1] * 50 + 100 > 127.5
    assert batch.relative is not None and torch.equal(batch.relative == UNSEEN, hidden)
    assert torch.equal(batch.x, torch.where(hidden, 0.0, plain.x)) and bool((batch.relative[~hidden] == 1).all())


OPERATORS = ["gray", "downsample:factor=2", "blur:sigma=0.3..0.6+jpeg:quality=20..90"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_the_network_is_told_is_made_of_the_example(operator: str) -> None:
    """By hand: uniform numbers and noise of the example's own streams, in the units of the model."""
    condition = Condition(operator, noise=(0.0, 0.1), dropout=0.3)
    dataset = images(margin=2)
    batch, plain = maker(dataset, condition=condition)(3), maker(dataset)(3)
    assert plain.condition is None and same(plain, batch)
    numbers, count = range(24, 32), condition.values((3, 4, 6))
    keys = np.array([[example_seed(3, Stream.CONDITION, number)] for number in numbers], np.uint64)
    u = torch.from_numpy(uniform(keys, np.arange(condition.draws)))
    generators = [torch.Generator().manual_seed(example_seed(3, Stream.CONDITION_NOISE, number)) for number in numbers]
    noise = torch.stack([torch.randn(count, generator=generator) for generator in generators])
    assert batch.condition is not None
    assert torch.equal(batch.condition, condition(batch.x, u, noise, 100.0 / 255, 50.0 / 255))
    told = batch.condition[:, -1, 0, 0] == 1
    assert 1 <= int(told.sum()) <= 7 and bool((batch.condition[~told] == 0).all())


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_network_is_told_the_same_at_any_number_of_processes(operator: str, processes: int) -> None:
    one = maker(images(margin=2), condition=Condition(operator, noise=(0.0, 0.1)))
    for step in (0, 5):
        parts = [replace(one, rank=rank, processes=processes)(step).condition for rank in range(processes)]
        joined, whole = torch.cat([part for part in parts if part is not None]), one(step).condition
        assert whole is not None and torch.equal(joined, whole)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_gpu_is_told_the_same_without_a_wait(operator: str) -> None:
    one = maker(condition=Condition(operator, noise=(0.0, 0.1)))
    on_cpu = one(5).condition
    with pretended("cuda") as ledger:
        found = replace(one, device=ledger.device)(5).condition
    assert found is not None and on_cpu is not None and not ledger.waits, str(ledger)
    assert torch.equal(found.value, on_cpu)  # type: ignore[attr-defined]


def test_without_a_condition_the_network_is_told_nothing() -> None:
    dataset = images()
    assert isinstance(dataset.values, np.ndarray)
    assert maker(replace(dataset, condition=dataset.values))(0).condition is None


def test_what_nobody_saw_is_not_observed() -> None:
    seen = np.random.default_rng(1).integers(0, 2, (23, 1, 4, 6), dtype=np.uint8)
    dataset, observing = images(), Observing(share=1.0, noisy=0.0, unseen=0.0)
    batch, whole = maker(replace(dataset, seen=seen), observing=observing)(1), maker(dataset, observing=observing)(1)
    assert batch.relative is not None and whole.relative is not None
    unseen = batch.relative == UNSEEN
    assert 0.3 < unseen.float().mean() < 0.7 and torch.equal(batch.relative[~unseen], whole.relative[~unseen])


def test_completed_examples_are_taken_whole_or_with_their_holes_as_often() -> None:
    """Those that are whole are observed through holes of the data, in half of what is observed of them."""
    seen = np.random.default_rng(1).integers(0, 2, (23, 1, 4, 6), dtype=np.uint8)
    observing, dataset = Observing(share=1.0, noisy=0.0, unseen=0.0), replace(images(), seen=seen)
    one = maker(dataset, observing=observing, holes=Given(seen), flip=False)
    made = [one(step) for step in range(40)]
    levels = torch.cat([batch.relative for batch in made if batch.relative is not None])
    whole = (levels != UNSEEN).flatten(1).all(1)
    assert abs(float(whole.float().mean()) - 0.5) < 4 * (0.25 / 320) ** 0.5
    masks = torch.from_numpy(seen) != 0
    through = ((levels[whole] == 0)[:, None] == masks[None]).flatten(2).all(2).any(1)
    assert abs(float(through.float().mean()) - 0.5) < 4 * (0.25 / int(whole.sum())) ** 0.5
    kept = masks[[int(name) for step in range(40) for name in one.names(step)]]
    assert torch.equal((levels != UNSEEN)[~whole], kept[~whole]), "the others have the holes that were theirs"
    x, plain = (torch.cat([each(step).x for step in range(40)]) for each in (one, maker(images(), flip=False)))
    assert torch.equal(x[whole], plain[whole]) and torch.equal(x[~whole], (plain * kept)[~whole])
    parts = [replace(one, rank=rank, processes=2)(3).relative for rank in range(2)]
    assert torch.equal(torch.cat([part for part in parts if part is not None]), levels[24:32])

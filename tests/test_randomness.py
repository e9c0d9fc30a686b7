"""Noise is a function of (seed, number) alone."""

from __future__ import annotations

import pytest
import torch

from diffusion import randomness
from diffusion.randomness import ExampleNoise, Stream, drawing_threads, example_seed


def test_seeds_never_change() -> None:
    assert example_seed(0) == 4246866556266386882
    assert example_seed(0, 0) == 5046677104938694277
    assert example_seed(0, 1) == 2024819301478721300
    assert example_seed(1, 0) == 5250232019403110347
    assert example_seed(7, 12, 3) == 6569119626237874087


def test_seeds_are_63_bits_and_distinct() -> None:
    seeds = [example_seed(seed, i) for seed in range(20) for i in range(500)]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**63
    assert example_seed(1, 11) != example_seed(11, 1) != example_seed(111)


def test_the_first_numbers_never_change() -> None:
    for dtype in (torch.float32, torch.float64):
        noise = ExampleNoise([example_seed(0, 0)])(torch.zeros(1, 3, dtype=dtype))
        assert noise[0].tolist() == pytest.approx([-0.24418943, 1.30311863, -1.44994144], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_depends_on_its_seed_alone(dtype: torch.dtype) -> None:
    seeds = [example_seed(3, i) for i in range(7)]
    whole = ExampleNoise(seeds)(torch.zeros(7, 3, 4, 4, dtype=dtype))
    assert whole.dtype == dtype
    for i in (0, 4, 6):
        assert torch.equal(ExampleNoise(seeds[i : i + 1])(torch.zeros(1, 3, 4, 4, dtype=dtype))[0], whole[i])
    correlation = torch.corrcoef(whole.flatten(1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.5, "48 numbers each: 0.5 is 3.5 standard errors"


def test_calls_continue_the_stream() -> None:
    noise = ExampleNoise([1, 2])
    first, second = noise(torch.zeros(2, 16)), noise(torch.zeros(2, 16))
    again = ExampleNoise([1, 2])
    assert torch.equal(again(torch.zeros(2, 16)), first) and torch.equal(again(torch.zeros(2, 16)), second)
    assert (first - second).abs().min() > 0


def test_it_is_standard_normal() -> None:
    noise = ExampleNoise([5])(torch.zeros(1, 200_000, dtype=torch.float64))
    assert noise.mean().abs() < 0.01 and (noise.std() - 1).abs() < 0.01
    assert (noise.square() < 1).double().mean() == pytest.approx(0.6827, abs=0.005)


def test_another_batch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="noise: 2 seeds were given for a batch of 3 examples"):
        ExampleNoise([1, 2])(torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(), (1,), (15,), (16,), (3, 5, 7), (2, 32, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_threads_draws_the_same_noise(
    dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(randomness, "VALUES_PER_THREAD", 1)
    seeds = [example_seed(3, i) for i in range(7)]
    alone = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in seeds]
    for threads in (1, 2, 3, 7, 16):
        with torch.inference_mode():
            found = ExampleNoise(seeds).fill(torch.empty(7, *shape, dtype=dtype), threads)
        assert torch.equal(found, torch.stack(alone))
    assert torch.equal(ExampleNoise(seeds)(torch.zeros(7, *shape, dtype=dtype)), torch.stack(alone))


def test_noise_has_the_type_of_x_and_is_drawn_in_float32_at_least() -> None:
    x = torch.zeros(2, 64, dtype=torch.bfloat16)
    assert torch.equal(ExampleNoise([1, 2])(x), ExampleNoise([1, 2])(x.float()).bfloat16())


def test_threads_draw_for_accelerators_alone_and_only_where_there_is_much_to_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(randomness, "cores", lambda: 3)
    assert [drawing_threads(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [1, 3, 3]
    monkeypatch.setattr(randomness, "cores", lambda: 64)
    assert drawing_threads(torch.device("cuda")) == randomness.MAX_THREADS
    asked = []
    monkeypatch.setattr(randomness, "spread", lambda call, n, threads: asked.append((n, threads)))
    for size in (2**12, 2**14, 2**16):
        ExampleNoise(range(8)).fill(torch.empty(8, size), 4)
    assert asked == [(8, 1), (8, 2), (8, 4)]


# The streams that are drawn from under one seed, by the numbers that they never change.
GROUPS = {
    "training": {
        "ORDER": 0,
        "AUGMENT": 1,
        "NOISE": 2,
        "NOISE_LEVEL": 3,
        "LABEL": 4,
        "OBSERVED": 5,
        "CONDITION": 6,
        "CONDITION_NOISE": 7,
    },
    "sampling": {"SAMPLE": 0, "GRID": 3, "DAMAGE": 5, "SHARED": 6, "HOLES": 7},
    "likelihood": {"PATH": 1, "OFFSET": 2, "DEQUANTIZATION": 4},
}


def streams() -> dict[str, int]:
    return {name: value for name, value in vars(Stream).items() if not name.startswith("_")}


def test_the_streams_never_change() -> None:
    assert streams() == {name: number for group in GROUPS.values() for name, number in group.items()}


@pytest.mark.parametrize("group", GROUPS)
def test_streams_that_are_drawn_from_together_have_different_numbers(group: str) -> None:
    numbers = [streams()[name] for name in GROUPS[group]]
    assert len(set(numbers)) == len(numbers)


def test_streams_of_different_groups_do_not_meet_under_one_seed() -> None:
    """The seeds of all generators and uniform numbers of a run, its samples and its likelihood are distinct.

    The exception is a number whose seed is used for a generator in one place and for a uniform number in another.
    """
    numbers, repeats = range(200), range(4)
    hashed = [example_seed(0, Stream.ORDER), example_seed(0, Stream.NOISE)]
    generators = [
        *(example_seed(0, stream, n) for stream in (Stream.AUGMENT, Stream.NOISE) for n in numbers),
        *(example_seed(0, stream, n) for stream in (Stream.SAMPLE, Stream.GRID) for n in numbers),
        # Those of the damage to an image are those of what is observed of an example, which is no normal noise.
        *(example_seed(0, Stream.DAMAGE, n) for n in numbers),
        example_seed(0, Stream.SHARED),
        *(
            example_seed(0, stream, repeat, n)
            for stream in (Stream.PATH, Stream.OFFSET, Stream.DEQUANTIZATION)
            for repeat in repeats
            for n in numbers
        ),
    ]
    uniform = [example_seed(0, stream, n) for stream in (Stream.NOISE_LEVEL, Stream.LABEL) for n in numbers]
    assert len({*hashed, *generators}) == len(hashed) + len(generators)
    assert len(set(uniform)) == len(uniform)
    grid = {example_seed(0, Stream.GRID, n) for n in numbers}
    assert set(uniform) & {*hashed, *generators} == grid, "a generator there, a uniform number here"


def test_dropout_meets_other_streams_where_the_docstring_says_so() -> None:
    """Seeds of (step, process) equal those of examples only for the first steps and the first examples."""
    processes, steps = range(8), range(1000)
    dropout = {example_seed(0, step, process): step for step in steps for process in processes}
    taken = {example_seed(0, stream, n) for stream in set(streams().values()) for n in range(1000)}
    assert {step for seed, step in dropout.items() if seed in taken} == set(streams().values())
    assert "Dropout has no stream" in str(Stream.__doc__)

"""Parts of a problem are solved as each by itself, whatever is solved beside it, with full batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import config
from diffusion.data import DataSpec
from diffusion.data.observing import Observing
from diffusion.denoiser import Denoiser, V
from diffusion.draw import Draw
from diffusion.model import Model
from diffusion.model.progress import Progress
from diffusion.model.solving import Piece, Solver
from diffusion.operators import Mask
from diffusion.restoration import Problem
from diffusion.restoration.methods import METHODS, Replacement, Twisted
from diffusion.restoration.parts import split
from diffusion.schedules import EDM
from tests.oracles import MixtureOracle, OracleNetwork, given, short_correlations

STEPS = 48


def holes(size: tuple[int, int], *places: tuple[int, int, int, int]) -> Tensor:
    """The known pixels of an image with holes at (top, left, bottom, right)."""
    known = torch.ones(1, *size, dtype=torch.bool)
    for top, left, bottom, right in places:
        known[:, top:bottom, left:right] = False
    return known


def test_far_holes_are_samples_of_the_posterior_of_the_whole_image(exact_images: Model) -> None:
    """The reference is the exact posterior of the large image, of which all holes are drawn together."""
    size, n, spec = (12, 56), 48, exact_images.spec
    known = holes(size, (4, 5, 7, 10), (3, 28, 9, 31), (0, 50, 2, 53))
    whole = short_correlations(EDM(), *size, 1.5)
    image = spec.decode(whole.sample(1, torch.Generator().manual_seed(0)))[0].float()
    found = exact_images.inpaint(image, known, n=n, steps=STEPS, method="mmps")
    assert found.diagnostics.parts == 3 and found.part.shape == (n, 15 + 18 + 6)
    assert torch.equal(found.samples[:, known], image[known].expand(n, -1))
    matrix = torch.eye(known.numel()).double()[known.flatten()]
    given = whole.posterior(matrix, spec.standardize(image).double().flatten()[known.flatten()], 1e-3)
    std = given.covariance.diagonal().sqrt()
    z = ((spec.standardize(found.samples).flatten(1) - given.mean.flatten()) / std)[:, ~known.flatten()]
    # The mean of exact samples would be off by 1 / sqrt(48) = 0.14.
    assert float(z.mean(0).square().mean().sqrt()) < 0.25 and float(z.var(0).mean()) == pytest.approx(1, abs=0.15)
    # Holes that are independent in truth are independent in the samples too.
    first, second = z[:, :15].mean(1), z[:, 15:33].mean(1)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.4


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"zero"}))
def test_a_hole_is_restored_as_if_there_were_no_other(model: Model, mapped_model: Model, name: str) -> None:
    """`zero` needs noise, and with noise there are no parts. Its batch holds one part alone, or both at once."""
    model = mapped_model if name == "learned" else model
    image = torch.rand(3, 20, 44, generator=torch.Generator().manual_seed(0))
    first, second = (3, 2, 6, 5), (9, 30, 15, 33)
    alone = model.inpaint(image, holes((20, 44), first), n=2, steps=4, method=name)
    both = [
        model.inpaint(image, holes((20, 44), first, second), n=2, steps=4, method=name, batch=batch)
        for batch in (64, 20)
    ]
    for found in both:
        assert found.diagnostics.parts == 2 and found.diagnostics.windows == alone.diagnostics.windows + 16
        torch.testing.assert_close(found.samples[..., :22], alone.samples[..., :22], rtol=0, atol=1 / 40)
        assert float((found.part[0] - found.part[1]).abs().max()) > 1e-3 or name == "particles"
    # Equal holes in equal surroundings are restored by different noise.
    twice = torch.cat([image[..., :22], image[..., :22]], 2)
    found = model.inpaint(twice, holes((20, 44), first, (3, 24, 6, 27)), n=2, steps=4, method=name)
    left, right = found.samples[..., 3:6, 2:5], found.samples[..., 3:6, 24:27]
    assert float((left - right).abs().max()) > 1e-3


@pytest.fixture
def mapped_images(exact_images: Model) -> Model:
    """The model of Gaussian images, whose exact denoiser takes maps."""
    return replace(exact_images, config=replace(exact_images.config, observed=Observing(share=0.5)))


def uneven(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What is known of an image of 12x56, and a map of its noise.

    It has a hole, a place in noise that differs, and one in even noise with a hole in it; all else is known exactly.
    """
    noise = torch.zeros(1, *size)
    noise[:, 2:8, 25:31], noise[:, 4:6, 27:29], noise[:, 9:, 48:] = 0.05, 0.4, 0.1
    return holes(size, (4, 3, 8, 7), (9, 52, 12, 56)), noise


def test_places_in_noise_are_samples_of_the_posterior_of_the_whole_image(mapped_images: Model) -> None:
    """What is known exactly stays as it is, and splits the image into parts as it does around holes."""
    size, n, spec = (12, 56), 64, mapped_images.spec
    known, noise = uneven(size)
    whole = short_correlations(EDM(), *size, 1.5)
    x = spec.decode(whole.sample(1, torch.Generator().manual_seed(0)))[0].float()
    image = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = mapped_images.inpaint(image, known, noise=noise, n=n, steps=STEPS)
    assert found.diagnostics.method.name == "learned" and found.diagnostics.parts == 3
    assert (found.diagnostics.nfe, found.diagnostics.backward) == (STEPS, 0)
    exact = known & (noise == 0)
    assert torch.equal(found.samples[:, exact], image[exact].expand(n, -1)) and found.part.shape == (n, 16 + 36 + 24)
    units = noise[None].double() / (spec.std / spec.top)
    posterior = given(whole, spec.standardize(image)[None].double(), units, known[None])
    std = posterior.covariance.diagonal().sqrt()
    z = ((spec.standardize(found.samples).flatten(1) - posterior.mean.flatten()) / std)[:, ~exact.flatten()]
    # The mean of exact samples would be off by 1 / sqrt(64) = 0.13.
    assert float(z.mean(0).square().mean().sqrt()) < 0.22 and float(z.var(0).mean()) == pytest.approx(1, abs=0.15)
    # Restorations miss what was seen by as much as its noise.
    assert found.diagnostics.residual == pytest.approx(1, abs=0.35)


def test_places_in_noise_are_solved_together_as_each_by_itself(mapped_images: Model) -> None:
    size = (12, 56)
    known, noise = uneven(size)
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    options = {"noise": noise, "n": 3, "steps": 5}
    together = mapped_images.inpaint(image, known, batch=1000, **options)  # type: ignore[arg-type]
    apart = mapped_images.inpaint(image, known, batch=1, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(together.samples, apart.samples, rtol=0, atol=1e-5)
    left = torch.where(torch.arange(56) < 15, known, known | True)
    alone = mapped_images.inpaint(image, left, noise=noise * (torch.arange(56) < 15), n=3, steps=5)
    torch.testing.assert_close(together.samples[..., :14], alone.samples[..., :14], rtol=0, atol=1e-5)


def test_points_are_restored_given_some_coordinates_and_a_label(tmp_path: Path) -> None:
    """By a network that is exact for a mixture: given a label, the other coordinate is that of one component."""
    means = torch.tensor([[-1.0, 0.5, 1.0], [1.0, -0.5, 0.0]], dtype=torch.float64)
    oracle = MixtureOracle(EDM(), means, 0.05, torch.tensor([0.5, 0.5], dtype=torch.float64))
    experiment = config.from_dict(
        {
            "data": {"source": "swiss_roll", "labels": False},
            "backbone": {"name": "mlp"},
            "observed": {"share": 0.5},
            "training": {"label_dropout": 0.2},
        }
    )
    spec = DataSpec((3,), None, ("first", "second"), mean=0.3, std=2.0)
    model = Model(Denoiser(OracleNetwork(oracle, V()), EDM(), V()), spec, experiment)
    point, known = spec.decode(torch.tensor([[0.3, 0.0, 0.4]]))[0], torch.tensor([True, False, True])
    noise, n = spec.std / spec.top * torch.tensor([0.0, 0.0, 0.5]), 400
    options = {"n": n, "steps": 32, "noise": noise}
    found = {
        label: spec.standardize(model.inpaint(point, known, label=label, **options).samples)  # type: ignore[arg-type]
        for label in (None, "first", "second")
    }
    for number, label in enumerate(("first", "second")):
        x = found[label]
        assert torch.allclose(x[:, 0], torch.tensor(0.3))
        # A product of Gaussians for the coordinate in noise, and the component for the one that is hidden.
        variance = 1 / (1 / 0.05 + 1 / 0.25)
        exact = torch.tensor([means[number, 1], variance * (means[number, 2] / 0.05 + 0.4 / 0.25)])
        spread = torch.tensor([0.05, variance]).sqrt()
        assert ((x[:, 1:].mean(0) - exact) / spread).abs().max() < 5 / n**0.5
        assert (x[:, 1:].std(0) / spread - 1).abs().max() < 0.15
    # Without a label, y weighs the components by its likelihood.
    normal = torch.distributions.Normal
    weight = normal(means[:, 0], 0.05**0.5).log_prob(torch.tensor(0.3, dtype=torch.float64))
    weight += normal(means[:, 2], 0.3**0.5).log_prob(torch.tensor(0.4, dtype=torch.float64))
    share = float((found[None][:, 1] > 0).double().mean())
    assert share == pytest.approx(float(weight.softmax(0)[0]), abs=0.03)


def test_an_image_known_exactly_is_returned_without_any_noise(mapped_images: Model) -> None:
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = mapped_images.restore(image, "denoise", n=2, steps=3)
    torch.testing.assert_close(found.samples, image.expand(2, -1, -1, -1), rtol=0, atol=1e-6)


def test_a_restoration_of_many_parts_depends_on_its_seed_and_number_alone(model: Model) -> None:
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    known = holes((40, 40), (3, 2, 6, 5), (9, 30, 12, 33), (33, 3, 39, 5), (30, 30, 31, 31))
    options = {"steps": 3, "method": "replacement"}
    whole = model.inpaint(image, known, n=5, **options)  # type: ignore[arg-type]
    assert whole.diagnostics.parts == 4
    for n, batch in ((5, 1), (5, 20), (2, 50), (1, 1000)):
        some = model.inpaint(image, known, n=n, batch=batch, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(some.part, whole.part[:n], rtol=0, atol=1e-4)
    other = model.inpaint(image, known, n=5, seed=1, **options)  # type: ignore[arg-type]
    assert not torch.allclose(other.part, whole.part, atol=1e-2)


def test_nothing_to_restore_takes_no_evaluation(model: Model) -> None:
    image = torch.rand(3, 20, 44)
    for name in ("mmps", "resampling"):
        problem = Problem(Mask(torch.ones(1, 20, 44).bool()), image[None], shape=(3, 20, 44))
        found = model.solve(problem, Draw(2), method=name)
        assert torch.equal(found.samples, image.expand(2, -1, -1, -1)) and found.part.shape == (2, 0)
        assert (found.diagnostics.nfe, found.diagnostics.windows, found.diagnostics.parts) == (0, 0, 0)


def runs(model: Model, sizes: list[int], n: int, batch: int, solver: Solver | None = None) -> list[tuple[int, range]]:
    """The numbers of the parts of each run, and those of the solutions, for holes of sizes in a row."""
    known = torch.ones(1, 40, 60 * len(sizes), dtype=torch.bool)
    for i, size in enumerate(sizes):
        known[:, 12 : 12 + size, 60 * i + 20 : 60 * i + 20 + size] = False
    problem = Problem(Mask(known), torch.zeros(1, *known.shape), shape=tuple(known.shape))
    chosen = solver or Solver(
        Replacement(), model.denoiser, torch.linspace(1, 0, 3), model.spec, model.device, 0, None, batch
    )
    found = replace(chosen, batch=batch).runs(split(problem, (8, 8)), range(n))
    assert all(isinstance(piece, Piece) for run in found for piece in run.pieces)
    return [(tuple(piece.number for piece in run.pieces), run.numbers) for run in found]  # type: ignore[misc]


def test_parts_are_solved_together_up_to_a_batch(exact_images: Model) -> None:
    """A pixel takes 9 windows, a hole of 4x4 takes 16 and one of 8x8 25."""
    assert runs(exact_images, [1, 1, 1, 1], 2, 1000) == [((0, 1, 2, 3), range(2))]
    assert runs(exact_images, [1, 1, 1, 1], 2, 40) == [((0, 1), range(2)), ((2, 3), range(2))]
    assert runs(exact_images, [4, 1], 2, 40) == [((1,), range(2)), ((0,), range(2))]
    assert runs(exact_images, [4, 1], 5, 48) == [((0,), range(2)), ((0,), range(2, 5)), ((1,), range(5))], "evenly"
    assert runs(exact_images, [8], 3, 10) == [((0,), range(1)), ((0,), range(1, 2)), ((0,), range(2, 3))]
    assert runs(exact_images, [1], 0, 10) == []


def test_parts_are_weighed_each_by_itself(exact_images: Model) -> None:
    solver = Solver(
        Twisted(), exact_images.denoiser, torch.linspace(1, 0, 3), exact_images.spec, exact_images.device, 0, None, 1
    )
    assert runs(exact_images, [1, 1, 1], 4, 1000, solver) == [((i,), range(4)) for i in range(3)]


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "heun"])
def test_the_bar_of_noise_alone_moves_evenly_to_its_end(
    mapped_images: Model, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of its pixels hardly change until the trajectory comes by their noise, and say nothing of the steps."""
    places: list[int] = []
    move = Progress._move
    monkeypatch.setattr(Progress, "_move", lambda self: (move(self), places.append(self.bar.n))[0])
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = mapped_images.restore(image, "denoise", noise=0.1, n=1, steps=8, sampler=sampler, progress=True)
    each = 2 if sampler == "heun" else 1
    assert found.diagnostics.nfe in (8 * each, 8 * each - 1) and found.diagnostics.backward == 0
    assert places[-1] == 8 and places == sorted(places) and set(places) == set(range(9))

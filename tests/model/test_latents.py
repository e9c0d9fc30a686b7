"""Latents of the probability flow: exact on Gaussian data, inverse within the tolerance, and arcs between them."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.errors import InputError
from diffusion.model import Model
from diffusion.model.latents import spherical
from diffusion.schedules import EDM, Cosine
from tests.model.test_drawing import ORACLE, exact
from tests.oracles import correlated

POINTS = torch.tensor([[1.2, -0.7], [0.0, 0.3], [-2.0, 1.0]])


@pytest.mark.parametrize("schedule", [EDM(), Cosine()], ids=["edm", "cosine"])
def test_latents_of_gaussian_data_are_those_of_the_closed_form(schedule: EDM | Cosine) -> None:
    oracle = correlated(schedule)
    start, end = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    (alpha, _), (last_alpha, last_sigma) = schedule(start), schedule(end)
    expected = oracle.flow(alpha * POINTS.double(), start, end) / (last_alpha**2 + last_sigma**2).sqrt()
    found = exact(oracle).encode(POINTS, tolerance=1e-7)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_decoding_is_the_inverse_of_encoding_within_the_tolerance() -> None:
    model, missed = exact(), {}
    for tolerance in (1e-4, 1e-5, 1e-6):
        back = model.decode(model.encode(POINTS, tolerance=tolerance), tolerance=tolerance)
        missed[tolerance] = float((back - POINTS).abs().max())
        assert missed[tolerance] < 10 * tolerance
    assert missed[1e-6] < missed[1e-4] / 30


def test_an_ode_sampler_with_given_noise_comes_to_what_is_decoded() -> None:
    model, z = exact(), torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    decoded = model.decode(z)
    errors = [float((model.sample(noise=z, sampler="heun", steps=steps) - decoded).abs().max()) for steps in (20, 80)]
    assert errors[1] < 0.005 and errors[1] < errors[0] / 3


def test_a_trained_network_is_inverted_below_a_gray_level(model: Model) -> None:
    images = (model.sample(3, seed=1, label=[0, 1, 0]) * 255).round() / 255
    for label, guidance in ((None, 1.0), ([0, 1, 0], 2.0)):
        z = model.encode(images, label=label, guidance=guidance)
        assert z.shape == (3, 3, 8, 8) and z.dtype == torch.float32
        assert float((model.decode(z, label=label, guidance=guidance) - images).abs().max()) < 0.5 / 255
    labeled = model.encode(images, label=1)
    assert not torch.allclose(labeled, model.encode(images), atol=1e-2)
    assert torch.allclose(model.encode((images * 255).byte(), label=1, batch=1), labeled, atol=1e-3)


def test_the_ends_of_an_interpolation_are_the_images(model: Model) -> None:
    a, b = (model.sample(2, seed=1) * 255).byte()
    between = model.interpolate(a, model.images(b)[0], 5, label="disk")
    assert between.shape == (5, 3, 8, 8)
    assert torch.equal((between[0] * 255).round().byte(), a) and torch.equal((between[4] * 255).round().byte(), b)
    steps = (between[1:] - between[:-1]).flatten(1).norm(dim=1)
    assert float(steps.max()) < 0.7 * float((between[4] - between[0]).norm()), "no jump from one to the other"


def test_points_between_are_decoded_from_the_arc() -> None:
    model = exact()
    z = model.encode(POINTS[:2])
    expected = model.decode(spherical(z[0], z[1], 4))
    assert torch.allclose(model.interpolate(POINTS[0], POINTS[1], 4), expected, atol=1e-5)
    assert ORACLE.mean.shape == (2,)


def test_an_arc_keeps_the_angle_and_the_norm_even() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 4, 4, generator=generator).double()
    b *= a.norm() / b.norm()
    path = spherical(a, b, 7)
    assert torch.allclose(path[0], a) and torch.allclose(path[-1], b)
    assert torch.allclose(path.flatten(1).norm(dim=1), a.norm().expand(7))
    cosines = (path[1:] * path[:-1]).flatten(1).sum(1) / a.norm() ** 2
    assert torch.allclose(cosines, cosines[0].expand(6))
    total = float((a * b).sum() / a.norm() ** 2)
    assert float(cosines[0].arccos()) * 6 == pytest.approx(math.acos(total), rel=1e-9)


def test_parallel_latents_are_joined_by_a_line() -> None:
    a = torch.tensor([1.0, 2.0])
    assert torch.allclose(spherical(a, a, 3), a.expand(3, 2)) and torch.allclose(spherical(a, 3 * a, 3)[1], 2 * a)
    assert spherical(a, torch.zeros(2), 3).isfinite().all()


def test_what_has_no_latents_is_named(model: Model) -> None:
    for call, message in (
        (
            lambda: model.encode(torch.full((1, 3, 8, 8), 3.0)),
            r"x: must lie in \[0, 1\], or be uint8, got 3 in example 0",
        ),
        (lambda: model.decode(torch.zeros(1, 3, 8, 9)), r"z: must be \(B, 3, 8, 8\), got \(1, 3, 8, 9\)"),
        (lambda: model.interpolate(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)), r"b: must be \(3, 8, 8\) as the data"),
        (
            lambda: model.interpolate(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), 1),
            "count: must be a whole number, 2 or more, the two ends among them, got 1",
        ),
        (lambda: model.encode(torch.zeros(1, 3, 8, 8), label="circle"), "label: must be -1 for none, 0 to 1"),
        (lambda: model.encode(torch.zeros(1, 3, 8, 8), tolerance=0.0), "solver.tolerance: must be a positive number"),
        (lambda: model.encode(torch.zeros(1, 3, 8, 8), batch=0), "batch: must be at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            call()

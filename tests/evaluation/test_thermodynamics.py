"""The ledger of models whose process is known, and of a trained one against its bound."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import cli, config, figures
from diffusion.commands.measured import open_examples
from diffusion.config import Config, SamplingConfig
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import AnyDenoiser, Denoiser, V
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, Setting
from diffusion.evaluation.ledger import Ledger
from diffusion.evaluation.thermodynamics import LedgerEstimator, Thermodynamics, levels
from diffusion.model import Model, load
from diffusion.schedules import EDM, VariancePreserving
from diffusion.thermodynamics.balance import balance
from diffusion.training import train
from tests.conftest import fails
from tests.oracles import GaussianOracle, OracleNetwork, Shrunk

# A schedule with a closed inverse, which the oracle's network needs at every step.
SCHEDULE = EDM(0.02, 50.0)
PRESERVING = VariancePreserving(SCHEDULE)
PLANE = GaussianOracle(
    SCHEDULE, torch.zeros(2, dtype=torch.float64), torch.tensor([[0.7, 0.4], [0.4, 0.5]], dtype=torch.float64)
)
ENDS = torch.tensor([SCHEDULE.log_snr_min, SCHEDULE.log_snr_max], dtype=torch.float64)


def model(denoiser: AnyDenoiser) -> Model:
    network = OracleNetwork(denoiser, V())
    return Model(Denoiser(network, SCHEDULE, V()), DataSpec((2,), None), Config(sampling=SamplingConfig(steps=20)))


def points(n: int, seed: int = 0) -> Dataset:
    values = PLANE.sample(n, torch.Generator().manual_seed(seed)).float().numpy()
    return Dataset(values, DataSpec((2,), None), None, [str(i) for i in range(n)])


def exact() -> dict[str, float]:
    """Returns the rows of the ledger of the plane in bits, from the moments of x_t where its variance is preserved."""
    alpha, sigma = PRESERVING(PRESERVING.time(ENDS))
    spectrum = alpha[:, None] ** 2 * PLANE.eigen[0] + sigma[:, None] ** 2
    entropies, squares = (2 * math.pi * math.e * spectrum).log().sum(1) / 2, spectrum.sum(1)
    kl = (squares - 2 - spectrum.log().sum(1)) / 2
    nats = {
        "entropy": entropies[0] - entropies[1],
        "heat": (squares[1] - squares[0]) / 2,
        "production": kl[1] - kl[0],
        "information": (ENDS.exp()[:, None] * PLANE.eigen[0]).log1p().sum(1).diff()[0] / 2,
        "total": torch.tensor(PLANE.entropy),
    }
    return {name: float(value) / math.log(2) for name, value in nats.items()}


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Thermodynamics(draws=64, steps=128, paths=4)(model(PLANE), points(300), Setting())


def test_every_row_is_within_its_interval_of_the_closed_form(ledger: Ledger) -> None:
    assert ledger.unit == "bits/vector" and ledger.examples == 300
    for name, truth in exact().items():
        row = ledger.terms[name]
        assert row.half_width is not None and row.half_width < 0.35
        assert abs(row.mean - truth) < 1.5 * row.half_width, name
    produced = ledger.terms["entropy"].mean + ledger.terms["heat"].mean
    assert ledger.terms["production"].mean == pytest.approx(produced, abs=1e-12)


def test_every_rate_is_within_its_errors_of_the_exact_balance(ledger: Ledger) -> None:
    log_snr = levels(SCHEDULE, 32)
    moment = float(PLANE.eigen[0].sum())
    rates = balance(PRESERVING, log_snr, PLANE.error(SCHEDULE.time(log_snr)), moment, 2)
    for name, nats in {"information": rates.information, "heat": rates.bath, "production": rates.production}.items():
        for (at, value, error), level, truth in zip(ledger.curves[name], log_snr, nats / math.log(2), strict=True):
            assert at == pytest.approx(float(level))
            assert abs(value - float(truth)) < 4.5 * error + 1e-6


def test_the_entropy_falls_along_the_reverse_trajectory_and_the_total_grows(ledger: Ledger) -> None:
    entropies, produced = ([value for _, value, _ in ledger.curves[name]] for name in ("entropy", "produced"))
    assert entropies[0] - entropies[-1] == pytest.approx(ledger.terms["entropy"].mean, abs=2e-3)
    assert produced[0] == 0 and produced[-1] == pytest.approx(ledger.terms["production"].mean, abs=2e-3)
    assert entropies[-1] < entropies[0] - 0.9 and produced[-1] > 0.4


def test_work_crosses_as_the_theorems_say(ledger: Ledger) -> None:
    """256 samples of the exact model, with one reverse and four forward paths each."""
    crooks, jarzynski = ledger.tests["crooks"], ledger.tests["jarzynski"]
    assert crooks.half_width is not None and abs(crooks.mean) < 1.5 * crooks.half_width < 0.1
    assert jarzynski.half_width is not None and abs(jarzynski.mean - 1) < 1.5 * jarzynski.half_width < 0.6
    assert len(ledger.work["dissipated"]) == len(ledger.work["forward"]) == 256 * 4
    assert len(ledger.work["reverse"]) == 256
    assert sum(ledger.work["reverse"]) < 0 < sum(ledger.work["forward"])
    assert "Crooks: 0." in ledger.table() and "1 by the theorem; the effective number of samples is" in ledger.table()


def test_a_wrong_model_produces_less_by_the_kl_of_its_paths() -> None:
    """The difference is 1/2 integral of SNR (error - mmse), by the closed form of both for a shrunken estimate."""
    share, dataset = 0.9, points(400)
    method = Thermodynamics(draws=64, paths=0)
    right, wrong = (method(model(each), dataset, Setting()) for each in (PLANE, Shrunk(PLANE, share)))
    log_snr = torch.linspace(float(ENDS[0]), float(ENDS[1]), 4001, dtype=torch.float64)
    # E|x - share E[x|x_t]|^2 - mmse = (1 - share)^2 E|E[x|x_t]|^2, and that is the trace of c less the mmse.
    excess = (1 - share) ** 2 * (PLANE.eigen[0].sum() - PLANE.error(SCHEDULE.time(log_snr)))
    kl = float(torch.trapezoid(log_snr.exp() * excess / 2, log_snr)) / math.log(2)
    difference = right.terms["production"].mean - wrong.terms["production"].mean
    noise = math.hypot(right.terms["production"].errors["noise"], wrong.terms["production"].errors["noise"])
    # Both share their noise, so the difference varies with the examples and the rest alone.
    assert difference == pytest.approx(kl, rel=0.1) and noise < kl


def test_the_forward_process_of_a_known_distribution_closes_with_the_learned_one() -> None:
    """The forward production is that of the exact model, and the difference the KL, whichever model is measured."""
    share, dataset = 0.9, points(400)
    estimator = LedgerEstimator(32, None, (1.0, 0.0), (1.0, 0.5, 0.0), PLANE)
    found = estimator(model(Shrunk(PLANE, share)), dataset, Setting())
    assert isinstance(found, Ledger)
    log_snr = torch.linspace(float(ENDS[0]), float(ENDS[1]), 4001, dtype=torch.float64)
    excess = (1 - share) ** 2 * (PLANE.eigen[0].sum() - PLANE.error(SCHEDULE.time(log_snr)))
    kl = float(torch.trapezoid(log_snr.exp() * excess / 2, log_snr)) / math.log(2)
    forward, learned, difference = (found.terms[name] for name in ("forward", "production", "difference"))
    assert forward.mean == pytest.approx(learned.mean + difference.mean, abs=1e-9)
    assert difference.half_width is not None and difference.half_width < 0.2 * kl
    assert abs(difference.mean - kl) < 1.5 * difference.half_width
    assert forward.half_width is not None and abs(forward.mean - exact()["production"]) < 1.5 * forward.half_width
    assert all(value >= 0 for _, value, _ in found.curves["difference"])
    assert "by the exact denoiser on 256 examples" in found.table() and list(found.terms)[-1] == "total"


def test_a_swiss_roll_has_its_forward_process_by_its_source(tmp_path: Path) -> None:
    experiment = config.from_dict(
        {
            "data": {"source": "swiss_roll", "count": 400, "held_out": 0.1},
            "backbone": {"name": "mlp", "width": 8, "blocks": 1},
            "training": {"steps": 4, "batch": 8, "precision": "fp32", "warmup": 1},
        }
    )
    assert train(experiment, tmp_path / "roll") == 0
    found = load(tmp_path / "roll")
    training, held_out = open_examples(found, found.config.data)
    method = Thermodynamics(draws=32, paths=0)
    own = method(found, held_out, Setting(limit=20, training=training))
    assert own.terms["difference"].mean > 1 and {"forward", "difference"} <= own.curves.keys()
    other = method(found, held_out, Setting(limit=20))
    assert "forward" not in other.terms and "which examples alone do not tell" in other.table()


def test_the_grid_is_that_of_the_run_and_its_error_that_of_first_order_steps(ledger: Ledger) -> None:
    steps = len(Config().grid(SCHEDULE, 20)) - 1
    assert ledger.grid["steps"] == steps and 0 < ledger.grid["efficiency"] < 1
    assert ledger.grid["action"] > ledger.grid["length"] ** 2
    error, coarse = ledger.grid["error"], Thermodynamics(draws=32, steps=4, paths=2)
    assert error.half_width < error.mean < 0.1
    few = replace(model(PLANE), config=Config(sampling=SamplingConfig(steps=5)))
    assert coarse(few, points(40), Setting()).grid["error"].mean > 2 * error.mean
    assert f"grid of {steps} steps" in ledger.table() and "4 times as many steps" in ledger.table()


def test_the_numbers_of_an_example_are_the_same_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    method, dataset = Thermodynamics(draws=32, steps=4, paths=2), points(12)
    whole = method(model(PLANE), dataset, Setting())
    monkeypatch.setattr(LedgerEstimator, "batch", lambda self, spec, device: 5)
    parts = method(model(PLANE), dataset, Setting())
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-5)
    for name in ("dissipated", "forward", "reverse"):
        if name in whole.work:
            np.testing.assert_allclose(parts.work[name], whole.work[name], atol=1e-3)
    assert parts.grid["error"].mean == pytest.approx(whole.grid["error"].mean, rel=1e-4)


def test_the_total_of_a_trained_model_is_its_bound(trained: Path) -> None:
    """By fixed levels and by levels drawn at random, with independent noise."""
    found = load(trained)
    _, held_out = open_examples(found, found.config.data)
    total = Thermodynamics(draws=64, paths=0)(found, held_out, Setting()).terms["total"]
    bound = BoundEstimator(draws=64, continuous=True)(found, held_out, Setting()).terms["total"]
    noise = math.hypot(total.errors["noise"], bound.errors["noise"])
    assert abs(total.mean - bound.mean) < 4 * noise + 1e-3 and noise < 0.05 * bound.mean
    assert total.half_width is not None and bound.half_width is not None
    assert abs(total.mean - bound.mean) < total.half_width + bound.half_width


def test_without_paths_there_is_no_work(trained: Path) -> None:
    found = load(trained)
    _, held_out = open_examples(found, found.config.data)
    result = Thermodynamics(draws=32, paths=0)(found, held_out, Setting(limit=3))
    assert not result.work and not result.tests and "error" not in result.grid
    assert list(result.terms)[-1] == "total" and len(result.values) == 3


def test_images_of_a_hasty_model_say_that_their_work_does_not_cross(trained: Path) -> None:
    found = load(trained)
    _, held_out = open_examples(found, found.config.data)
    result = Thermodynamics(draws=32, steps=8, paths=3)(found, held_out, Setting(limit=4))
    assert set(result.tests) == {"dissipated"} and result.tests["dissipated"].mean > 0
    assert len(result.work["dissipated"]) == 12 and set(result.work) == {"dissipated"}
    assert "does not cross (the least difference is" in result.table()
    assert "reliable for 0 of 4" in result.table()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 30}, "draws: must be an even number, at least 32, got 30"),
        ({"draws": 33}, "draws: must be an even number, at least 32, got 33"),
        ({"paths": 1}, "paths: must be at least 2, or 0 to leave them out, got 1"),
        ({"paths": 0, "steps": 4}, "steps: must be left out with 0 paths, whose steps they are, got 4"),
    ],
)
def test_bad_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Thermodynamics(**options)


def test_the_command_writes_the_ledger_and_its_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "evaluate",
        str(run),
        "--thermodynamics",
        "--draws",
        "32",
        "--steps",
        "4",
        "--paths",
        "2",
        "--limit",
        "4",
    ]
    assert cli.main([*command, "--seed", "3"]) == 0
    stem = "evaluation-thermodynamics-limit4-draws32-steps4-paths2-seed3"
    written = json.loads((run / f"{stem}.json").read_text())
    assert written["method"] == "thermodynamics" and written["settings"]["seed"] == 3 and written["examples"] == 4
    assert written["curves"].keys() == figures.read_info(run / f"{stem}.png")["curves"].keys()
    assert len((run / f"{stem}.csv").read_text().splitlines()) == 5
    out = capsys.readouterr().out
    assert "thermodynamics: the total is an upper bound on -log p" in out and "grid of 4 steps" in out
    message = fails(capsys, "evaluate", run, "--thermodynamics", "--tolerance", "1e-3")
    assert "--tolerance: is no option of thermodynamics, which takes draws, steps, paths, seed" in message

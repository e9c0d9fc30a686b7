"""`diffusion evaluate`: the numbers and figures it writes, by every evaluator, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, figures
from diffusion.commands.evaluate import EVALUATOR_OPTIONS
from diffusion.commands.measured import open_examples
from diffusion.commands.options import Evaluate
from diffusion.data import Dataset
from diffusion.evaluation import (
    EVALUATORS,
    BoundEstimator,
    Evaluation,
    Evaluator,
    FlowEstimator,
    ImportanceEstimator,
    Setting,
)
from diffusion.evaluation.intervals import estimate
from diffusion.evaluation.memorization import Memorization
from diffusion.evaluation.quality import Quality
from diffusion.model import Model, load
from diffusion.training import train
from tests.conftest import fails, tiny


def test_evaluate_prints_the_terms_and_writes_them(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["evaluate", str(run), "--limit", "5", "--draws", "4"]) == 0
    text = capsys.readouterr().out
    written = json.loads((run / "evaluation-limit5-draws4.json").read_text())
    assert written["examples"] == written["training"]["examples"] == 5 and "5 held-out examples" in text
    for term in ("prior", "diffusion", "decoder", "total"):
        assert f"{term:16s}{written['mean'][term]:12.4f}{written['terms'][term]['half_width']:12.4f}" in text
    assert f"{written['k']['K']['mean']:12.4f}" in text and "as Sohl-Dickstein et al. (2015)" in text
    assert figures.read_info(run / "evaluation-limit5-draws4.png")["curves"].keys() == {"held-out", "training"}


@pytest.mark.parametrize(
    ("method", "options", "stem", "sources"),
    [
        (
            "ode",
            ["--probes", "2", "--solver-steps", "3"],
            "ode-limit3-probes2-solver-steps3",
            {"examples", "dequantization", "probes", "solver"},
        ),
        ("importance", ["--paths", "2", "--steps", "3"], "importance-limit3-steps3-paths2", {"examples", "paths"}),
        ("bound", ["--draws", "2", "--continuous", "--no-compare"], "limit3-draws2-continuous", {"examples", "noise"}),
    ],
)
def test_every_method_writes_its_numbers_and_a_figure(
    run: Path, capsys: pytest.CaptureFixture, method: str, options: list[str], stem: str, sources: set[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--method", method, "--limit", "3", *options]) == 0
    written = json.loads((run / f"evaluation-{stem}.json").read_text())
    assert written["unit"] == "bits/dim" and written["terms"]["total"]["errors"].keys() == sources
    assert figures.read_info(run / f"evaluation-{stem}.png")
    text = capsys.readouterr().out
    assert "bits/dim" in text and all(source in text for source in sources)
    assert ("not reliable" in text) == (method == "importance")


def test_another_folder_is_measured_by_the_model_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = tmp_path / "one"
    (one / "square").mkdir(parents=True)
    Image.new("RGB", (8, 8), (40, 50, 60)).save(one / "square" / "flat.png")
    assert cli.main(["evaluate", str(run), "--data", str(one), "--draws", "2"]) == 0
    written = json.loads((run / "evaluation-one-draws2.json").read_text())
    assert written["examples"] == 1 and "training" not in written
    text = capsys.readouterr().out
    assert "1 one examples" in text and "one example: nothing is known of others" in text
    likelihood = load(run).likelihood()
    flat = torch.tensor([40, 50, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)

    def total(label: int) -> float:
        halves = [likelihood.bound(flat, draws=1, repeat=i, label=torch.tensor([label])).total for i in range(2)]
        return torch.cat(halves).mean().item() / 192 / np.log(2)

    assert total(1) == pytest.approx(written["mean"]["total"], rel=1e-6)
    assert total(0) != pytest.approx(total(1), rel=1e-4), "a disk's is another"
    (one / "square").rename(one / "circle")
    assert "--data: must have the classes disk, square, got circle" in fails(capsys, "evaluate", run, "--data", one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "limit: must be at least 1, got 0"),
        (["--draws", "0"], "draws: must be a positive multiple of 2, got 0"),
        (["--draws", "17"], "draws: must be a positive multiple of 2, got 17"),
        (["--steps", "0"], "steps: must be at least 1, got 0"),
        (["--method", "importance", "--paths", "1"], "paths: must be at least 2, got 1"),
        (["--method", "ode", "--probes", "1"], "probes: must be at least 2"),
        (["--method", "ode", "--tolerance", "0"], "solver.tolerance: must be a positive number, got 0"),
    ],
)
def test_evaluations_out_of_range(run: Path, capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    assert message in fails(capsys, "evaluate", run, *options)


def test_an_option_that_the_method_does_not_have_is_an_error_that_names_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    takes = "which takes draws, steps, continuous, seed, repeats, known"
    assert fails(capsys, "evaluate", run, "--paths", "4") == f"error: --paths: is no option of bound, {takes}\n"
    message = fails(capsys, "evaluate", run, "--method", "importance", "--solver-steps", "4")
    assert message == "error: --solver-steps: is no option of importance, which takes steps, paths, seed\n"
    assert "--continuous: is no option of ode" in fails(capsys, "evaluate", run, "--method", "ode", "--continuous")


def test_an_unknown_method_is_an_error_that_lists_all(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "evaluate", run, "--method", "flow")
    assert message == f"error: --method: must be one of {', '.join(EVALUATORS)}, got 'flow'\n"


def test_options_after_the_name_of_a_method_are_those_of_the_command_line(run: Path) -> None:
    results = []
    for method, stem in (
        (["importance:paths=4,seed=2"], "paths4-seed2"),
        (["importance", "--paths", "4", "--seed", "2"], "paths4-seed2"),
        (["importance:paths=4"], "paths4"),
    ):
        command = ["evaluate", str(run), "--limit", "2", "--steps", "3", "--method", *method]
        assert cli.main(command) == 0
        results.append(json.loads((run / f"evaluation-importance-limit2-steps3-{stem}.json").read_text()))
    assert results[0] == results[1] and len(results[0]["log_weights"][0]) == 4
    assert results[2]["values"] != results[0]["values"], "another seed"


def test_every_option_of_an_evaluator_can_be_given() -> None:
    """The command line sets all fields of the package's evaluators but a few that are rarely changed.

    Fields of another evaluator follow its name, as in `--method gray:count=5`.
    """
    kinds = (BoundEstimator, FlowEstimator, ImportanceEstimator, Quality, Memorization)
    known = {field.name for kind in kinds for field in fields(kind)}
    by_name_alone = {"repeats", "distribution", "shift", "images"}
    assert known - by_name_alone <= set(EVALUATOR_OPTIONS) <= {field.name for field in fields(Evaluate)}


@pytest.fixture
def restoring(restorer: Path, tmp_path: Path) -> Path:
    """A copy of the run that learned to restore."""
    return Path(shutil.copytree(restorer, tmp_path / "restoring"))


def test_what_is_hidden_has_results_of_its_own(
    restoring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", str(restoring), "--limit", "4", "--draws", "2"]
    assert cli.main([*common, "--known", "box"]) == 0
    text = capsys.readouterr().out
    written = json.loads((restoring / "evaluation-limit4-draws2-known-box.json").read_text())
    assert written["settings"]["known"] == "box" and written["unit"] == "bits/hidden dim" and written["counted"] == 48
    assert written["kind"] == "upper bound on -log p(hidden | known)" and written["training"]["counted"] == 48
    assert "hidden: 48 of the 192 scalars of an example, of which the bits are, given 75.0% of the pixels" in text
    for term in ("prior", "diffusion", "decoder", "total"):
        assert f"{term:16s}{written['mean'][term]:12.4f}{written['terms'][term]['half_width']:12.4f}" in text
    with (restoring / "evaluation-limit4-draws2-known-box.csv").open() as file:
        assert file.readline() == "file,bits/hidden dim,standard error\n"
    model = load(restoring)
    _, held_out = open_examples(model, model.config.data)
    part = held_out.evenly(4)
    values, label = part.batch(range(len(part)))
    known = torch.ones(8, 8, dtype=torch.bool)
    known[2:6, 2:6] = False
    halves = [model.likelihood().bound(values, draws=1, repeat=i, label=label, known=known).total for i in range(2)]
    assert written["values"] == pytest.approx((sum(halves) / 96 / np.log(2)).tolist())  # type: ignore[attr-defined]
    # A plain evaluation, one of another mask, and one of another file of the same name are other results.
    assert cli.main(common) == 0
    plain = json.loads((restoring / "evaluation-limit4-draws2.json").read_text())
    assert "known" not in plain["settings"] and plain["counted"] is None and plain["unit"] == "bits/dim"
    for rows in (3, 5):
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[:rows] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        assert cli.main([*common, "--known", str(tmp_path / "mask.png"), "--no-compare"]) == 0
    found = [json.loads(path.read_text()) for path in restoring.glob("evaluation-limit4-draws2-known-mask-*.json")]
    assert sorted(each["counted"] for each in found) == [72, 120]
    assert len({each["settings"]["known"] for each in found}) == 2


def test_what_is_known_is_refused_where_it_cannot_be_used(
    trained: Path, restorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "evaluate", trained, "--known", "box", "--draws", "2")
    assert message.startswith("error: known: must be left out with this model, which takes one noise level for all ")
    for method in ("ode", "importance"):
        message = fails(capsys, "evaluate", restorer, "--known", "box", "--method", method)
        assert message.startswith(f"error: --known: is no option of {method}, which takes ")
    message = fails(capsys, "evaluate", restorer, "--known", "haf")
    assert message == (
        "error: known: must be one of box, half, random, or the file of a mask, got 'haf'; did you mean half?\n"
    )
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(tmp_path / "wide.png")
    message = fails(capsys, "evaluate", restorer, "--known", tmp_path / "wide.png")
    assert "wide.png: must be of the shape (3, 8, 8) of the data, or (1, 3, 8, 8), got (1, 9, 9)" in message
    message = fails(capsys, "evaluate", restorer, "--method", "bound:known=box", "--known", "half")
    assert message == "error: --known: is given in --method bound:known=box too; give it once\n"


def test_what_is_told_of_images_is_a_part_of_the_measurement(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs are found again with their images; others bring theirs, or are measured without and it is said."""
    for file in shapes.rglob("*.png"):
        pair = tmp_path / "gray" / file.relative_to(shapes)
        pair.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(pair)
    data = {"condition": str(tmp_path / "gray"), "condition_channels": 1}
    run, report = tmp_path / "run", {"restored": 0, "pictures": 2}
    assert train(tiny(shapes, data=data, report=report, training={"steps": 4}), run) == 0
    common = ["evaluate", str(run), "--limit", "3", "--draws", "2", "--no-compare"]
    assert cli.main(common) == 0
    told = json.loads((run / "evaluation-limit3-draws2.json").read_text())
    note = "told of each example: its pair (data.condition), given which the bits are"
    assert note in told["notes"] and note in capsys.readouterr().out
    model = load(run, device="cpu")
    _, held_out = open_examples(model, model.config.data)
    for number, (name, value) in enumerate(zip(told["names"], told["values"], strict=True)):
        x, label = held_out.batch([held_out.names.index(name)])
        given = model.given(tmp_path / "gray" / name).likelihood()
        halves = [given.bound(x, label=label, draws=1, repeat=i, numbers=[number]).total for i in range(2)]
        assert value == pytest.approx(float(sum(halves)) / 2 / 192 / np.log(2), abs=1e-4)
    assert cli.main([*common, "--no-condition"]) == 0
    alone = json.loads((run / "evaluation-limit3-no-condition-draws2.json").read_text())
    assert "told nothing: the bits are those of p(x)" in alone["notes"]
    assert cli.main([*common[:-1], "--data", str(shapes)]) == 0
    others = json.loads(next(run.glob("evaluation-*images*limit3-draws2.json")).read_text())
    assert "told nothing: the bits are those of p(x), as the examples have no pairs (data.condition)" in others["notes"]
    shutil.copytree(tmp_path / "gray", tmp_path / "moved")
    assert cli.main([*common[:-1], "--data", str(shapes), f"data.condition={tmp_path / 'moved'}"]) == 0
    assert note in capsys.readouterr().out


def test_leaving_out_what_is_told_has_no_effect_where_that_is_nothing(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "evaluate", trained, "--no-condition")
    assert message == f"error: --no-condition: has no effect on {trained}, whose network is told nothing of an image\n"


@dataclass(frozen=True)
class GrayValue(Evaluator):
    """The mean gray value of samples beside that of examples: an evaluator that is no likelihood."""

    count: int = 8
    seed: int = 0
    name = "gray"
    compares = True

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> Evaluation:
        if setting.limit is not None:
            examples = examples.evenly(setting.limit)
        x = model.sample(self.count, steps=2, seed=self.seed, guidance=setting.guidance)
        samples = x.double().flatten(1).mean(1)
        truth = examples.batch(range(len(examples)))[0].double().flatten(1).mean(1) / model.spec.top
        terms = {"samples": estimate(samples, {}), "examples": estimate(truth, {})}
        notes = (f"{self.count} samples",)
        return Evaluation(self.name, "mean gray value", "1", len(examples), terms, tuple(truth.tolist()), notes)


def test_an_evaluator_that_is_no_likelihood_is_written_as_table_json_and_figure(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EVALUATORS, "gray", GrayValue)
    assert cli.main(["evaluate", str(run), "--method", "gray:count=5", "--limit", "6", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    written = json.loads((run / "evaluation-gray-limit6-count5-seed3.json").read_text())
    x = load(run).sample(5, steps=2, seed=3).double().flatten(1).mean(1)
    assert written["mean"]["samples"] == pytest.approx(x.mean().item())
    assert written["standard_error"]["samples"] == pytest.approx(x.std().item() / 5**0.5)
    training, held_out = open_examples(model := load(run), model.config.data)
    assert training is not None
    for part, found in ((held_out, written), (training, written["training"])):
        gray = part.evenly(6).batch(range(6))[0].double().flatten(1).mean(1) / 255
        assert found["values"] == pytest.approx(gray.tolist())
        assert found["examples"] == 6 and found["mean"]["examples"] == pytest.approx(gray.mean().item())
        assert found["terms"]["examples"]["half_width"] == pytest.approx(2.5706 * gray.std().item() / 6**0.5, rel=1e-3)
    assert "gray: mean gray value, 1, 6 held-out examples" in text
    for name in ("samples", "examples"):
        assert f"{name:16s}{written['mean'][name]:12.4f}{written['terms'][name]['half_width']:12.4f}" in text
    assert f"training        {written['training']['mean']['examples']:12.4f}" in text and "5 samples" in text
    assert "K" not in written and figures.read_info(run / "evaluation-gray-limit6-count5-seed3.png")


def test_without_a_comparison_training_examples_are_not_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EVALUATORS, "gray", GrayValue)
    assert cli.main(["evaluate", str(run), "--method", "gray", "--limit", "2", "--no-compare"]) == 0
    assert "training" not in json.loads((run / "evaluation-gray-limit2.json").read_text())
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--no-compare", "--data", "x"],
            "--no-compare: has no effect with --data, whose images are compared with no ",
        ),
        (["--no-compare", "--method", "ode"], "--no-compare: has no effect with ode, which compares with no other"),
        (["--memorization", "--per-image", "a.csv"], "--per-image: has no effect with memorization, whose values are"),
        (["--continuous", "--steps", "9"], "--steps: has no effect with --continuous, which stands for infinitely"),
        (["--method", "bound:continuous=true", "--steps", "9"], "--steps: has no effect with --continuous, which "),
        (["--method", "ode", "--solver-steps", "9", "--tolerance", "1e-3"], "--tolerance: has no effect with --solver"),
        (
            ["--method", "ode:probes=2", "--probes", "3"],
            "--probes: is given in --method ode:probes=2 too; give it once",
        ),
        (["--method", "bound:seed=1", "--seed", "0"], "--seed: is given in --method bound:seed=1 too; give it once"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert fails(capsys, "evaluate", trained, *options).startswith(f"error: {message}")


def test_results_of_a_checkpoint_lie_beside_the_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = run / "checkpoints" / "step-00000020" / "model.safetensors"
    assert cli.main(["evaluate", str(given), "--limit", "2", "--draws", "2", "--no-compare"]) == 0
    assert (run / "step-00000020" / "evaluation-limit2-draws2.json").exists()
    assert sorted(path.name for path in given.parent.iterdir()) == [
        "manifest.json", "model.safetensors", "training.safetensors",
    ]  # fmt: skip

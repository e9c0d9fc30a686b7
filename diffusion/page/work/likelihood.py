"""The bound on how likely an image is, as `diffusion evaluate --data IMAGE` measures it, and its rank among others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from diffusion.page.work.given import CONFIG, Sourced
from diffusion.page.work.kind import Outcome
from diffusion.page.work.place import Place
from diffusion.page.work.watching import watched

# The independent estimates that the interval of one image is made from.
REPEATS = 16


@dataclass(frozen=True)
class Likelihood(Sourced):
    """Measure an image with so many draws of the noise."""

    __pydantic_config__ = CONFIG

    draws: Annotated[int, Field(ge=REPEATS, le=4096, multiple_of=REPEATS)] = 256

    def carry_out(self, place: Place) -> Outcome:
        """Measures the bound by terms and by noise level. Nothing is written beside the numbers of the job."""
        from diffusion.commands.evaluate import chosen
        from diffusion.commands.measured import data_options, open_examples
        from diffusion.commands.options import Evaluate
        from diffusion.evaluation import Setting
        from diffusion.evaluation.likelihood import LikelihoodEvaluation
        from diffusion.model import load
        from diffusion.model.clocks import marks

        method = f"bound:repeats={REPEATS},draws={self.draws}"
        options, model = Evaluate(place.run, data=self.image(place), method=method), load(place.run)
        evaluator = chosen(options)
        evaluator.check(model)
        _, examples = open_examples(model, data_options(options, model), place.run, options.data)
        with watched(model, "measuring", "draw", self.draws):
            result = evaluator(model, examples, Setting(condition=False))
        assert isinstance(result, LikelihoodEvaluation)
        print(result.table("image"))
        terms = {name: {"value": one.mean, "half": one.half_width} for name, one in result.terms.items()}
        numbers: dict[str, Any] = {
            "bits": {**terms["total"], "unit": result.unit},
            "terms": terms,
            "levels": {"x": [x for x, _, _ in result.by_log_snr], "y": [y for _, y, _ in result.by_log_snr]},
            "marks": [{"name": name, "at": at} for name, at in marks(place.run).items()],
            "notes": list(result.notes),
            "step": model.step,
        }
        return Outcome({**numbers, **_rank(place.run, result.values[0], result.unit)})


def _rank(run: Path, value: float, unit: str) -> dict[str, Any]:
    """How many of the held-out examples of a run have a larger bound, by its evaluation; empty without one."""
    from diffusion.evaluation.ranks import HeldOut

    found = HeldOut.stored(run)
    if found is None or found.unit != unit:
        return {}
    values = found.values
    told = {"above": sum(one > value for one in values), "of": len(values), "step": found.step}
    return {"rank": {**told, "least": values[0], "median": values[len(values) // 2], "largest": values[-1]}}

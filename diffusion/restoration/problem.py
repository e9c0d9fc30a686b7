"""The problem of restoration, y = A(x) + N(0, noise²): made and checked once, then solved by any method.

Where y shows pixels themselves, the noise may differ from pixel to pixel (`noise_maps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.errors import InputError, range_hint, require
from diffusion.operators import Identity, Linear, Mask, Operator, Selection, standardized
from diffusion.restoration import noise_maps
from diffusion.restoration.noise_maps import Noise
from diffusion.restoration.reach import least_missed

# Up to this many observations the default method weighs particles: with more, one particle would carry all the weight.
FEW = 16
# Without noise y may miss the range of A by this share of its own size, which the tolerance of a method leaves too.
SHARE = 1e-3
# A value of y may miss what A makes of the bounds of x by this share of their distance, and by so many standard
# deviations of the noise, of which one in a billion values is farther off.
MARGIN, DEVIATIONS = 0.5, 6


@dataclass(frozen=True)
class Problem:
    """y = A(x) + N(0, noise²) of one example x: y is (1, *), as the operator returns it for a batch of one.

    `shape` is that of x, (C, H, W) or (D,), or None where no method needs it. `stated` is the operator as the caller
    stated it, where `operator` is A in other units or for another size; errors name it.

    `noise` is a number, or where y shows pixels themselves a map (1, 1, *) on the CPU, (1, D) for points, whose values
    are 0 for pixels known exactly.

    Several problems with one operator between them are `examples` of them side by side: y is (examples, *), and so is
    a map.

    Raises InputError for noise below 0 or a map of another size, and unless y belongs to one example, or to so many.
    """

    operator: Operator
    y: Tensor
    noise: Noise = 0.0
    shape: tuple[int, ...] | None = None
    stated: Operator | None = None
    examples: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.noise, Tensor):
            pixels = self.y[:, :1] if self.y.ndim > 2 else self.y
            rule = f"a map of the pixels of y {tuple(self.y.shape)}"
            require(self.noise.shape == pixels.shape, "noise", rule, tuple(self.noise.shape))
            require(bool((self.noise >= 0).all()), "noise", "0 or more", float(self.noise.min()))
        else:
            require(self.noise >= 0, "noise", "0 or more", self.noise)
        whose = "that of one example, (1, *)" if self.examples == 1 else f"that of {self.examples} examples"
        require(len(self.y) == self.examples, "y", whose, tuple(self.y.shape))

    @classmethod
    def checked(
        cls,
        y: Tensor,
        operator: Operator,
        noise: Noise,
        shape: tuple[int, ...],
        *,
        bounds: tuple[float, float] | None = None,
    ) -> Problem:
        """The problem of finding x of `shape` from y (*), on the CPU in float32; all of its input is checked here.

        `noise` may be a map that broadcasts against x (`noise_maps.shared`). `bounds` are the least and the largest
        value of x, if there are such.

        Raises InputError for noise that is not finite and 0 or more, for a map where y does not show pixels, for a y of
        another shape than A(x) has, for y that is not floating point or not finite where something is known, for y or
        noise far beyond what A makes of the bounds, for a mask that shows nothing or hides nothing from which noise is
        to be removed, and without noise for a y that no x gives.
        """
        # The y of a mask may have been given to `Model.inpaint`, as its image.
        name, hides = ("image, or y", " where known") if isinstance(operator, Mask) else ("y", "")
        if not isinstance(noise, Tensor):
            require(0 <= noise < math.inf, "noise", "finite, 0 or more", noise)
        expected = tuple(_applied(operator, torch.zeros(()).expand(1, *shape)).shape[1:])
        rule = f"of the shape {expected} that the operator makes of {shape}"
        require(tuple(y.shape) == expected, "y", rule, tuple(y.shape))
        require(y.is_floating_point(), name, "floating point, white as 1 in images (divide bytes by 255)", y.dtype)
        given = y[None].detach().cpu().float()
        # The values that a mask hides are never looked at: they may be anything.
        given = operator(given) if isinstance(operator, Mask) else given
        if isinstance(noise, Tensor):
            given, noise = cls(operator, given, shape=shape)._with_map(noise)
        if isinstance(operator, Mask):
            _check_mask(operator.known, noise)
        problem = cls(operator, given, noise, shape)
        bad = int((~problem.y.isfinite()).sum())
        require(not bad, name, f"finite{hides}", f"NaN or infinity in {bad} of {y.numel()} values")
        if bounds is not None and problem.y.numel():
            problem._check_bounds(bounds, name, hides)
        if not isinstance(operator, Mask):  # The y of a mask was just made by it.
            problem.check_range(torch.zeros(1, *shape), bounds)
        return problem

    def _with_map(self, noise: Tensor) -> tuple[Tensor, Noise]:
        """y, and the noise that the channels of its pixels share, given a map. Raises InputError as `checked` does."""
        if not self.by_pixel:
            rule = "a number where y does not show pixels themselves, each with all of its channels or none"
            raise InputError(f"noise: must be {rule}, got a map for {self.operator}")
        return noise_maps.shared(self.y, noise_maps.checked(noise, self.x_shape), self.pixels("a map of noise"))

    @property
    def noisy(self) -> bool:
        """Whether y has noise anywhere."""
        return noise_maps.most(self.noise) > 0

    @property
    def level(self) -> float:
        """The noise, for methods that take a number alone. Raises InputError for a map."""
        if isinstance(self.noise, Tensor):
            raise InputError(
                "noise: must be a number for any method but learned, got a map; maps need a model that learned to "
                "restore (observed.share above 0 in its configuration)"
            )
        return self.noise

    def linear(self, method: str) -> Linear:
        """The operator, for the named method, which needs it to be linear. Raises InputError otherwise."""
        if not isinstance(self.operator, Linear):
            raise self.refused("linear", method)
        return self.operator

    def mask(self, method: str) -> Mask:
        """The operator, for the named method, which needs a mask. Raises InputError otherwise."""
        if not isinstance(self.operator, Mask):
            raise self.refused("a mask", method)
        return self.operator

    @property
    def by_pixel(self) -> bool:
        """Whether y shows pixels themselves, each with all of its channels or not at all."""
        if isinstance(self.operator, Identity):
            return True
        if not isinstance(self.operator, Mask):
            return False
        known = self.operator.known.broadcast_to(self.y.shape)
        return known.ndim == 2 or bool((known.all(1) == known.any(1)).all())

    def pixels(self, method: str) -> Tensor:
        """The values that y shows, bool in the shape of y, for the named method, which takes nothing but pixels.

        Raises InputError for an operator that does not show pixels themselves, or some of their channels.
        """
        if not self.by_pixel:
            raise self.refused("a mask that shows all channels of a pixel or none, or noise alone,", method)
        known = self.operator.known if isinstance(self.operator, Mask) else torch.ones((), dtype=torch.bool)
        return known.broadcast_to(self.y.shape)

    def refused(self, rule: str, method: str) -> InputError:
        """The error that says which rule of a method the operator breaks."""
        stated = self.stated or self.operator
        return InputError(f"operator: must be {rule} for {method}, got {stated}; take mmps or pigdm")

    @property
    def x_shape(self) -> tuple[int, ...]:
        """`shape`, of a problem that has one."""
        assert self.shape is not None
        return self.shape

    @property
    def compact(self) -> Problem:
        """The problem of one example without the zeros of a mask, which have neither noise nor density."""
        if not isinstance(self.operator, Mask):
            return self
        assert self.examples == 1
        known = self.operator.known.to(self.y.device).broadcast_to(self.y.shape)[0]
        noise = self.noise
        if isinstance(noise, Tensor):
            noise = noise.broadcast_to(self.y.shape)[:, known.cpu()]
        return replace(self, operator=Selection(known), y=self.y[:, known], noise=noise)

    @property
    def observations(self) -> int:
        """The number of values that were observed, without the zeros of a mask."""
        known = self.operator.known if isinstance(self.operator, Mask) else None
        if known is None:
            return self.y.numel()
        return int(known.count_nonzero()) * (self.y.numel() // known.numel())

    @property
    def few(self) -> bool:
        """Whether there is an observation, and at most `FEW` of them."""
        return 0 < self.observations <= FEW

    def in_model_units(self, mean: float, std: float, like: Tensor) -> Problem:
        """The problem for x where the example is mean + std x, on the device and with the shape of `like`.

        With u = mean + std x, y = A(u) + N(0, noise²) becomes (y - A(mean))/std = A'(x) + N(0, (noise/std)²), where
        A(mean) belongs to an example that is `mean` everywhere and A' is A itself if that is linear
        (`operators.standardized`). `like` is (1, C, *).
        """
        middle = self.operator(torch.full_like(like, mean))
        operator = standardized(self.operator, mean, std)
        y, stated = (self.y.to(middle) - middle) / std, self.stated or self.operator
        return Problem(operator, y, self.noise / std, tuple(like.shape[1:]), stated)

    def residual(self, x: Iterable[Tensor]) -> Tensor:
        """The root mean square of y - A(x) for examples x, each (C, *), in units of the noise where there is any: ();
        0 without observations.

        Of a map of noise only pixels that have some count. The examples are looked at one after the other.
        """
        compact = self.compact
        if not compact.y.numel():
            return self.y.new_zeros(())
        noise = compact.noise if self.noisy else 0.0
        if isinstance(noise, Tensor):
            noise = noise.broadcast_to(compact.y.shape)
        missed = (noise_maps.relative(compact.y.to(row) - compact.operator(row[None]), noise) for row in x)
        return torch.stack([values.square().mean() for values in missed]).mean().sqrt()

    def _check_bounds(self, bounds: tuple[float, float], name: str, hides: str) -> None:
        """Raises InputError for values of y, or noise, that are far beyond what A makes of x within the bounds."""
        values = self.y.flatten()
        deviations = torch.as_tensor(self.noise).broadcast_to(self.y.shape).flatten()
        # Values that are known exactly have no margin.
        exact = (deviations == 0) & isinstance(self.operator, Mask)
        slack = torch.where(exact, 0.0, MARGIN * (bounds[1] - bounds[0]) + DEVIATIONS * deviations)
        first, last = int((values + slack).argmin()), int((values - slack).argmax())
        least, most = float(values[first]), float(values[last])
        (low, _), (_, high) = (self._image_of(bounds, place) for place in (first, last))
        span, noise = max(high - low, bounds[1] - bounds[0]), noise_maps.most(self.noise)
        rule = f"at most {span:g} for values in [{bounds[0]:g}, {bounds[1]:g}]; divide that of bytes by 255"
        require(noise <= span, "noise", rule, noise)
        below, above = (
            0.0 if exact[place] else MARGIN * (high - low) + DEVIATIONS * float(deviations[place])
            for place in (first, last)
        )
        if low - below <= least and most <= high + above:
            return
        worst = most if most - high > low - least else least
        made = "" if isinstance(self.operator, Mask) else "what the operator makes of values "
        rule = f"in [{bounds[0]:g}, {bounds[1]:g}]{hides}"
        raise InputError(f"{name}: must be {made}{rule}, got {worst:g}{range_hint(least, most)}")

    def _image_of(self, bounds: tuple[float, float], place: int) -> tuple[float, float]:
        """The least and the largest value that A gives at a place of y, flattened, for x within the bounds.

        They are exact for a linear A. For any other they are those of constant examples and of one of black and white
        noise, which JPEG brings farthest from its range.
        """
        low, high = bounds
        if isinstance(self.operator, Mask):
            return bounds
        if not isinstance(self.operator, Linear):
            made = [torch.aminmax(self.operator(low + (high - low) * x)) for x in _probes(self.x_shape)]
            return min(float(y.min) for y in made), max(float(y.max) for y in made)
        unit = torch.zeros(self.y.numel())
        unit[place] = 1
        unit = unit.reshape(self.y.shape)
        row = self.operator.adjoint(unit, torch.zeros(1, *self.x_shape))
        positive, negative = float(row.clamp(min=0).sum()), float(row.clamp(max=0).sum())
        return positive * low + negative * high, positive * high + negative * low

    def check_range(self, like: Tensor, bounds: tuple[float, float] | None = None) -> None:
        """Raises InputError if without noise no example like `like`, (1, C, *), gives y, as far as `least_missed` can
        tell. `bounds` are those of the values of an example, if there are such.

        An operator that is not linear is not checked.
        """
        if self.noisy or not isinstance(self.operator, Linear) or not self.y.numel():
            return
        missed = least_missed(self.operator, self.y, like, enough=SHARE, bounds=bounds)
        if missed > SHARE * float(self.y.double().square().mean().sqrt()):
            raise InputError(
                "y: without noise it must be what the operator gives for some example, got one that misses it by "
                f"{missed:.2g} (root mean square); say with noise how far it is off"
            )


def _probes(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Examples (1, *) in [0, 1] that show the range of an operator."""
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield torch.full((1, *shape), value)
    yield torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).round()


def _check_mask(known: Tensor, noise: Noise) -> None:
    """Raises InputError for a mask with which nothing is restored."""
    if not known.any():
        raise InputError(
            "known: must be True where something is known, got False everywhere; samples without anything known are "
            "those of Model.sample"
        )
    if known.all() and not noise_maps.most(noise):
        raise InputError(
            "known: must be False where something is to be restored, got True everywhere; to remove noise, say with "
            "noise how strong it is"
        )


def _applied(operator: Operator, x: Tensor) -> Tensor:
    try:
        # The shape alone is asked for, and an image may be large.
        return operator(x.to("meta") if isinstance(operator, Mask) else x)
    except InputError as error:
        if not isinstance(operator, Mask):
            raise
        # `Model.inpaint` calls the mask `known`.
        raise InputError(f"known, the {error}") from error

"""The likelihood of examples by a denoiser: bounds, the probability flow, importance weights, and the units."""

"""The likelihood of examples under a denoiser: bounds, the probability flow, importance weights, and units."""

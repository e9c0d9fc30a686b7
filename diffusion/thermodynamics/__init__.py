"""The thermodynamics of a diffusion: information, entropy, heat and work by noise level."""

"""The commands of `diffusion`, a file each. `options/` holds the options of all and imports nothing heavy."""

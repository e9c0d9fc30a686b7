"""The commands of `diffusion`, a file each. `options.py` holds the options of all and imports nothing heavy."""

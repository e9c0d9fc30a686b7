"""What each command of `diffusion` does, a file each; `options.py` holds their options and imports nothing heavy."""

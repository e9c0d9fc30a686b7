"""The parts of `inpaint` and `restore`: images in, results out."""

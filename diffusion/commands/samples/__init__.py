"""The parts of `sample`, `encode` and `decode`: numbers to draw, files to write."""

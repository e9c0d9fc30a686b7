"""Slow evidence: commands that anyone can run on their own machine and data."""

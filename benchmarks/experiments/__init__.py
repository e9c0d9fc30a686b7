"""The experiments of Sohl-Dickstein et al. (2015, arXiv 1503.03585), rerun; docs/experiments.md has their protocols.

A new experiment is a function from a `Setting` to its tables and goals, and a line in `EXPERIMENTS` of `__main__.py`.
"""

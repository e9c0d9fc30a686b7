"""The tests, a package by this file: without it, one that is called so and was installed would stand in its place."""

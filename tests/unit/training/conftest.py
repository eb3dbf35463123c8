"""Fixtures of the training tests."""

from training_runs import digits, make_run

__all__ = ["digits", "make_run"]

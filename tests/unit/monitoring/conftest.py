"""Fixtures of the monitoring tests."""

from watched_runs import clock, data, trained, trained_once

__all__ = ["clock", "data", "trained", "trained_once"]

"""Runs, metrics, files and the verdict to a tracking server, at the end of an experiment."""

"""Releases as Prometheus metrics, read from their files and from the versions that are served."""

"""Assay: controlled comparison of PyTorch models."""

__version__ = "0.1.0"

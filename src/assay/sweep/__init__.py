"""Tuning before the comparison: what is tried next, what trials came to, and which settings are selected."""

"""The gate: a candidate against a stored baseline, with an exit code that a pipeline can act on."""

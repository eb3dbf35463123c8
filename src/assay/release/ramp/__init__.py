"""The ramp: what is to be served to whom, written down before it is done, and brought about."""

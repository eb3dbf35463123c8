"""Training one arm at one seed."""

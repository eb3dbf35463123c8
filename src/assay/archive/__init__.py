"""The archive of an experiment: one file that others can check and run again."""

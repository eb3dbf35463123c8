"""Data sets: read from their sources, divided, written to a memory-mapped store, served as batches."""

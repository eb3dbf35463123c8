"""What a running experiment does, read from its files alone: by `assay watch` and by the exporter."""

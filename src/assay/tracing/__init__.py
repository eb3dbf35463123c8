"""Where an arm's time goes, by kernel: taken apart from every timing, because the profiler costs time itself."""

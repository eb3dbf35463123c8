"""A place of its own for each job, and bounds on what it takes."""

"""What Assay asks of a cluster that schedules with Slurm."""

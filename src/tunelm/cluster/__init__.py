"""The same work on a Slurm cluster: a readable batch script, its jobs, their logs."""

"""An ECS host over SSH: its jobs, their files, their checks."""

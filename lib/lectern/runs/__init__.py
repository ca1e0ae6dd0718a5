"""What was handled without a run, and the runs that show it, as values; `flows` gives them to Prefect."""

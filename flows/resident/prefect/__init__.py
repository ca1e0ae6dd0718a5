"""What the resident process does with Prefect: runs, deployments, the worker, and the recorder of batches."""

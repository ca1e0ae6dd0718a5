"""Settings under which the cases are played."""

SETTINGS = {"SWEEP_INTERVAL_S": "30", "STREAMER_LOST_AFTER_S": "60", "LEASE_S": "45"}
"""Those that count are as an operator has them."""

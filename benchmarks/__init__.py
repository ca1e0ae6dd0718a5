"""What is promised, measured beside its peers."""

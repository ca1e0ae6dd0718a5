"""lectern: recorded lessons, aired as live classes."""

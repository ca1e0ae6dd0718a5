"""The host's settings files: only the documented values are edited, everything else is kept."""

"""The host's settings files: edited where documented, kept otherwise."""

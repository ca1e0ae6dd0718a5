"""Builds the release: one file that a host needs to run lectern, with nothing to be fetched there."""

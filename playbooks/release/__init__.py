"""Builds the release: one file with everything that a host needs to run lectern, so that it fetches nothing."""

"""Backups before a rollout: made, proved, archived."""

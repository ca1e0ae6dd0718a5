"""The rollout onto live hosts: what `lectern rollout STEP` does, and how it is undone."""

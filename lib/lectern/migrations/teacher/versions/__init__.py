"""The teacher database's revisions; each keeps its own frozen table definitions."""

"""The streamer database's revisions; each keeps its own frozen table definitions."""

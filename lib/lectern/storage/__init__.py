"""Files: the cache of a streamer, where recordings come from, and the object store."""

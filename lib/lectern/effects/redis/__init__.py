"""Redis: channels, streams, waiting lists, locks, and the renaming of keys."""

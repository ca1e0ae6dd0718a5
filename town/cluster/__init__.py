"""A whole cluster in containers, to try what happens when any part of it is killed."""

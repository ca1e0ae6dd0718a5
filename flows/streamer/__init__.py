"""What a streamer does with a class: cache its rendition, air it, release it."""

"""The outside world, one module a tool: an effect looks, acts, looks again, and raises with what it found."""

"""What the page for people shows, as values and as texts; `flows` serves it."""

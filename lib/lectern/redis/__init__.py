"""What hosts say to each other over Redis."""

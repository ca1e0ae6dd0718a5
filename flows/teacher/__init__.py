"""What the teacher does with a class, in the order in which it happens."""

"""Hosts on which nothing of lectern is, and a clone of the project from which they are provisioned and rolled out."""

"""Messages as they are on the wire, and how they are read and written."""

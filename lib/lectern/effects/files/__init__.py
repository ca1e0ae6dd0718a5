"""Files here and at their origin: downloads, uploads, the disk cache."""

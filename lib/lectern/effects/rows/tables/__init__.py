"""The tables of both databases; nothing outside effects knows them."""

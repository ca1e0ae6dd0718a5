"""Changes one line of the product at a time, and looks whether a test notices."""

"""Real servers on loopback: what lectern needs around it, for the demo and the tests to play against."""

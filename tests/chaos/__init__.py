"""Kill tests: servers and processes die at random instants, and every verdict is still there exactly once."""

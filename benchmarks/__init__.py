"""Every speed claim as a command. Each prints a table and ends with one JSON object on a line of its own."""

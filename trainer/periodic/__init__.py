"""Retuning that nobody watches: from the archive to a challenger, the gate, and what follows from it."""

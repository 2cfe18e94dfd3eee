"""Messages as an enemy would send them."""

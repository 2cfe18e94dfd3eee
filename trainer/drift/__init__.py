"""Whether a line still looks as it did when its pack was made."""

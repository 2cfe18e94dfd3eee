"""Retuning: from labelled frames to a better prompt pack."""

"""Labelled frames, wherever they come from: one port, one adapter a layout."""

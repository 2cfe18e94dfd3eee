"""The archive: which images are kept and why, where they lie, and the manifest that says what was found on them."""

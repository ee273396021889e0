"""What Sphinx is taught for this repository: see `pages` and `reference`."""

"""Turns recordings into the data sets that trainers read. See docs/export.md."""

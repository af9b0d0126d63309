"""Bytes to values and back, for messages of peers and for files: what all codecs share."""

"""Pickles of peers and of files, read without being executed; and written, for who reads nothing else."""

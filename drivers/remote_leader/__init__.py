"""A leader on another machine: its joints as datagrams, stamped, authenticated, and how late they are."""

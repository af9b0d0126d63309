"""Data sets of every kind, as one interface: `policies.data.dataset`."""

"""The configuration: its model, where values come from, what must hold between tables."""

"""The panel's server: a process of its own, which a browser talks to."""

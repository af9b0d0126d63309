"""All that the application knows of the simulated tabletop."""

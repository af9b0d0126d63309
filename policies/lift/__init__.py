"""The small policy that ships: it lifts the masked object by its geometry, the joints and the force."""

"""``dexrun collect``: demonstrations on the simulated table, made by the geometric policy."""

"""``dexrun train``: any policy that has a recipe, on any data set."""

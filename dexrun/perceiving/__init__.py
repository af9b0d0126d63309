"""``dexrun perceive``: what the configured detector, segmenter and point in space see in one picture."""

"""``dexrun annotate``: masks, boxes, points, phrases and sub-steps for whole data sets."""

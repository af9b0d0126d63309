"""From a box in a picture to a mask that follows its object."""

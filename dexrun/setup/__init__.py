"""Setting devices up."""

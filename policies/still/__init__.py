"""The policy that holds still: what every evaluation is to be compared with."""

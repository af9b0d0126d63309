"""What the protocols' servers share: clients, tokens, limits, counters, and what they ask of an engine."""

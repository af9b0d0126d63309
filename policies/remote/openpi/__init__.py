"""openpi's policy server protocol: msgpack over a websocket."""

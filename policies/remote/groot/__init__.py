"""GR00T's policy server protocol: msgpack over ZeroMQ request and reply."""

"""The ACT server's protocol: pickles over ZeroMQ request and reply."""

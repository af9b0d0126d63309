"""SmolVLA's network: it reads once, and denoises a chunk from that; no policy is built of it yet."""

"""SmolVLA: a small vision-language model reads once, and an expert denoises a chunk from what it read."""

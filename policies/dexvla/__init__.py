"""DexVLA: a vision-language model says what it does next, and a diffusion transformer does it."""

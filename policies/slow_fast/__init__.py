"""A slow model thinks, a fast policy acts on its newest thought."""

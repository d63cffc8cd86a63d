"""ViT-Slim."""

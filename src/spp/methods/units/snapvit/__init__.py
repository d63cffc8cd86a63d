"""SnapViT: gradients of a self-supervised loss, weighed by an evolution strategy."""

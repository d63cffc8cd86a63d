"""Images with captions: sources, tokenizers, and the data module over them."""

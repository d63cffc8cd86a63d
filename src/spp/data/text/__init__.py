"""Text for language models: where it comes from, and how it becomes windows of tokens."""

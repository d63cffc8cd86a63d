"""Networks: one builder per library, and the weights they start from."""

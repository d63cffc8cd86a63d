"""The units of work: dense, update, prune, finetune; and the worker that runs one of them."""

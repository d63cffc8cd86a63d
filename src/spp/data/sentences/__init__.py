"""Sentences, alone or in pairs, with a class or a number each: where they come from, and how they become tokens."""

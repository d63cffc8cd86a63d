"""Taylor and Fisher."""

"""The mask dynamics (linearised Bregman iteration), the solution path they leave, masks for any budget."""

"""SPP with RIA: a split Bregman iteration on the mask, or a path that the RIA score drives."""

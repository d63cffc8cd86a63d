"""One file per architecture; each registers an adapter that lists the pairs and cuts units out."""

"""Where finished stages live: folders, DONE and FAILED markers, claims, provenance."""

"""Records from elsewhere, one file per format."""

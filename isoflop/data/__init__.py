"""From texts to token files and batches."""

"""The language model and its training. The one place that imports torch."""

"""Executors: each runs folders, and knows only folders."""

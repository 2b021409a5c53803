"""A question expanded into runs, and the runs handed to machines."""

"""Applications to read and to run."""

"""Results as pictures and files. Nothing here imports torch."""

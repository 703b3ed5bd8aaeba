"""Caches: texts on disk, analysed photos in memory, results for the last arrays."""

"""Serve the page: middleware, request tracking, uploads, results and models in memory, ZeroGPU."""

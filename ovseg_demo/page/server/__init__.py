"""What keeps the page up: middleware, request tracking, uploads, results and models in memory, ZeroGPU."""

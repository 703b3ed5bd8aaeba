"""How layers run: in one step with their activation, and on all cores."""

"""One pass through a recurrent model on record: every state, gate, projection, gradient."""

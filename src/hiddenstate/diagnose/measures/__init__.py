"""What several rules measure: differences, reach, memory, and what the weights can do."""

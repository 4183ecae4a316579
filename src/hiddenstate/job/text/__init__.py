"""Language models: what comes next in a text, fitted, judged, generated and scored."""

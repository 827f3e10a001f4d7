"""Whether what is served still looks like what the model was trained on: references, two-sample tests, looks and what an alarm costs."""

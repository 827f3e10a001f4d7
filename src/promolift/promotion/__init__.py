"""How a model version reaches shoppers: its stages, the trail of who moved it and why, and what stops it. No server, no registry."""

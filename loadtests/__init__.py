"""Load and faults: what the decision service does when it is busy, and when parts of it die."""

"""The decision without any server: eligibility, constraints, exploration and the budget ledger."""

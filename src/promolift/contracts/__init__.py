"""What crosses a border between two rooms, written once; every reader derives its own form from here."""

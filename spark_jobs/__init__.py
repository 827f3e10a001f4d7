"""Spark jobs on Delta: verb_noun, each takes the nouns before it and makes the next."""

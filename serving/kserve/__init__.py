"""One file a box of the graph, and the adapters that serve them."""

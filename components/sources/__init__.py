"""One module a source: raw data -> the contract's landing tables. A new source is one module here and its name in land_events.SOURCES."""

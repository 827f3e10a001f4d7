"""The promo engine API: the one door that the platform calls."""

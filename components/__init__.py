"""One plain module a stage; `interfaces.py` holds every stage's signature and image."""

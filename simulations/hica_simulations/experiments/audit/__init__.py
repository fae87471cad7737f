"""Leakage audit: what an attacker learns of a patient from exactly what leaves a site."""

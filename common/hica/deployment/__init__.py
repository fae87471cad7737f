"""What only real processes need: supervision, locks, keys, start kits."""

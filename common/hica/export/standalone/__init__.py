"""Code that is copied into an exported folder, and needs no HiCA there."""

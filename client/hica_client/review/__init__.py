"""Review: a page at the hospital, on which people look at what a study makes of their images."""

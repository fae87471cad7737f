"""Reports become findings, at the site: sentences, standing, assignment, targets.

A report never leaves the site, nor does an embedding of it, and no error or log repeats its words.
"""

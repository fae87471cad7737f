"""Intake: a folder as it comes from an archive → pictures, pseudonyms and rows of the manifest."""

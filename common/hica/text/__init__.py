"""The text side: the bank of class and finding texts, and how its tower is refined."""

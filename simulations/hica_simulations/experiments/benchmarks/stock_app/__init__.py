"""A federated averaging app as Flower's tutorials write it; `hica_simulations` runs it as stock.

Nothing of HiCA is imported here: these files are what Flower ships to its SuperNodes.
"""

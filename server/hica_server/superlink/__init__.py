"""The coordinator's only contact with Flower's internals: its processes, Control API and grid.

Flower 1.41 has no public way to start a run or to register a node, and its grid looks for replies
every three seconds. What of its private parts is used instead is all in this folder;
`tests/unit/hica_server/test_flower_internals.py` fails when one of them has moved.
"""

"""Speed as ratios measured side by side: one file a question, `bench` asks them.

Seconds of two machines, or of one machine on two days, do not compare; the ratio of two ways taken
in turn within the same minute nearly does. `repeat` is how often each way is measured, by turns.
"""

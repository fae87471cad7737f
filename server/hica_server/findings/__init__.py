"""Where the findings of a study come from: a file that somebody has read before it is used.

`draft` is the file. `template`, `random_words` and `language_model` propose what it holds, `apply`
merges a reviewed one into a study, `commands` are the verbs of `hica-server findings`.
"""

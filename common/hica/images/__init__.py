"""Images on disk → pixels, masks, labels and few-shot episodes."""

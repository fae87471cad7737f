"""A site's images: which rows play which role, and rows made into what the model takes."""

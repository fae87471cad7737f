"""A site's images as the model takes them: roles, regions, views, and the frozen part cached."""

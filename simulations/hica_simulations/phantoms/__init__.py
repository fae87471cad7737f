"""Drawn images with lesion masks, for studies without patient data: `sites` draws a site's own."""

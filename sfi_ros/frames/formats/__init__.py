"""The structure of image files, checked before a native decoder sees them; one module for each format."""

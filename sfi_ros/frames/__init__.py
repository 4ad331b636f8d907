"""Where frames come from: images, folders, videos, bags and the synthetic street."""

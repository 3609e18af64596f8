"""Running notebooks headless, and the folder an instructor grades in."""

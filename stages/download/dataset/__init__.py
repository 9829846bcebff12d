"""The half of download that writes data/raw."""

"""The half of download that writes models/base."""

"""The files of the Space, which work without this project."""

"""Check what DVC would delete, and all of params.yaml, before any other stage."""

"""Model packages: what is published, how it is checked before it serves, and what runs it."""

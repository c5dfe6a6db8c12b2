"""The networks that tickets are sought in, their initialisation, and which of their weights lie on a live path."""

"""The receiver's HTTP side: authentication, limits and answers. Door: `app`."""

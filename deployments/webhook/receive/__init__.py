"""The receiver's HTTP side: who may say something, how much, and what is answered. Door: `app`."""

"""git, run safely: repositories by path or URL, and fetched copies of them."""

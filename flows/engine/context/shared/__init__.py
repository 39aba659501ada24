"""State that machines share: at an address, with a working copy on each."""

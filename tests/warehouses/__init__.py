"""The product on all four warehouses: real adapters and clients against real or local servers."""

"""What becomes of a delivery: verdict, alert, and one run per finished sync. Door: `dispatcher`."""

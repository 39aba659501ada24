"""Process deliveries: verdict, alert, and one run per finished sync. Door: `dispatcher`."""

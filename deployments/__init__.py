"""What runs where and when: schedules, work pools and receivers for the flows."""

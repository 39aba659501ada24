"""Payroll of one concert: checks, signatures, export and archive. Door: `flow`."""
